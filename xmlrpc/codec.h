/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes <-> calls and results, for XML-RPC (XenAPI's envelope) and JSON-RPC 1.0 / 2.0. Pure: no
 * I/O.
 *
 * Encoding follows XenAPI to the byte: no white space between tags, "" as <value></value>, ints as
 * bare decimal text, VALUE_I4 as <i4>, control characters other than TAB LF CR dropped. Decoding is
 * strict: no DTD, no entities but the five, no network, limits below; a violation is -EBADMSG with
 * a fault that says what and where. XML that is not UTF-8 is -EILSEQ with the INVALID_VALUE of the
 * contract. Strings that are not UTF-8 are encoded with "?" for each byte beyond ASCII; CR becomes
 * &#13;, without which a reader would take it for LF. */
#ifndef FERRY_XMLRPC_CODEC_H
#define FERRY_XMLRPC_CODEC_H

#include "base/buf.h"
#include "base/fault.h"
#include "base/value.h"

#include <stdbool.h>
#include <stddef.h>

struct codec_limits {
	size_t max_bytes;
	size_t max_depth;  /* nested arrays and structs */
	size_t max_values; /* values in the whole document */
};

/* What a server accepts from anybody (300 KiB bodies, as XenAPI), and what a client accepts from
 * the server it chose to call. */
extern const struct codec_limits codec_limits_request;
extern const struct codec_limits codec_limits_response;

/* *ret_params is an array. A bare <value>text</value> is a string. The caller frees both. */
int xml_decode_call(const void *data, size_t length, const struct codec_limits *limits,
	char **ret_method, struct value **ret_params, struct fault *fault);
void xml_encode_call(const char *method, const struct value *params, struct buf *out);

/* Success and Failure structs; bare: the value alone in <param> (system.listMethods). A NULL result
 * is "". */
void xml_encode_success(const struct value *result, struct buf *out);
void xml_encode_bare(const struct value *result, struct buf *out);
void xml_encode_failure(const struct fault *failure, struct buf *out);
/* 0: *ret_result. -EREMOTEIO: the peer answered Failure (or a <fault>), which is now in *fault.
 * -EBADMSG, -EILSEQ: not an XML-RPC answer. Ints come as
 * strings unless the peer tagged them. */
int xml_decode_response(const void *data, size_t length, const struct codec_limits *limits,
	struct value **ret_result, struct fault *fault);

/* "<value>...</value>": the form of task.result. The caller frees it. */
char *xml_encode_fragment(const struct value *value);
/* The same, read; an XML declaration may stand before it. -EBADMSG, -EILSEQ as above. */
int xml_decode_fragment(const void *data, size_t length, const struct codec_limits *limits,
	struct value **ret_value, struct fault *fault);

enum json_version { JSON_RPC_1, JSON_RPC_2 };

/* The id of a request, kept as it came. */
struct json_id {
	bool is_string;
	int64_t number;
	char *text;
};

void json_id_clear(struct json_id *id);

int json_decode_call(const void *data, size_t length, const struct codec_limits *limits,
	char **ret_method, struct value **ret_params, enum json_version *ret_version,
	struct json_id *ret_id, struct fault *fault);
void json_encode_success(const struct value *result, enum json_version version,
	const struct json_id *id, struct buf *out);
void json_encode_failure(const struct fault *failure, enum json_version version,
	const struct json_id *id, struct buf *out);

#endif
