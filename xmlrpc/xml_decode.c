/* SPDX-License-Identifier: Apache-2.0 */
#include "xmlrpc/codec.h"
#include "xmlrpc/xml_parse.h"

#include "base/alloc.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Element nesting is at most three times max_depth and a little; libxml2 itself stops at 256. */
const struct codec_limits codec_limits_request = {
	.max_bytes = (size_t)300 << 10,
	.max_depth = 32,
	.max_values = 20000,
};
const struct codec_limits codec_limits_response = {
	.max_bytes = (size_t)32 << 20,
	.max_depth = 64,
	.max_values = 1000000,
};

int xml_decode_call(const void *data, size_t length, const struct codec_limits *limits,
	char **ret_method, struct value **ret_params, struct fault *fault)
{
	struct xml_document document CLEANUP_XML_DOCUMENT = {0};
	int r = xml_document_parse(data, length, limits, &document, fault);

	if (r < 0)
		return r;
	if (document.kind != XML_METHOD_CALL)
		return fault_text(fault, -EBADMSG, "XML-RPC: a <methodResponse> is no request");
	*ret_method = TAKE_PTR(document.method);
	*ret_params = TAKE_PTR(document.params);
	return 0;
}

/* Numbers in an error's parameters are wrong, but what they say is worth more than the rule. */
static char *param_text(const struct value *value)
{
	if (value->type == VALUE_INT || value->type == VALUE_I4)
		return xasprintf("%" PRId64, value->integer);
	return xstrdup(value_string(value, ""));
}

static int take_failure(const struct value *description, struct fault *fault)
{
	if (!description || description->type != VALUE_ARRAY || description->array.n_items == 0)
		return fault_text(fault, -EBADMSG,
			"XML-RPC: a Failure without an ErrorDescription of at least one item");
	char *code CLEANUP_FREE = param_text(description->array.items[0]);
	fault_set(fault, -EREMOTEIO, code, NULL);
	for (size_t i = 1; i < description->array.n_items; i++) {
		char *param CLEANUP_FREE = param_text(description->array.items[i]);
		fault_add_param(fault, param);
	}
	return -EREMOTEIO;
}

/* A <fault> is how XML-RPC itself, not XenAPI, says that a call failed. */
static int take_xmlrpc_fault(const struct value *value, struct fault *fault)
{
	const struct value *code = value_find(value, "faultCode");
	char *code_text CLEANUP_FREE = code ? param_text(code) : xstrdup("");

	return fault_set(fault, -EREMOTEIO, "Fault", value_find_string(value, "faultString", ""),
		code_text, NULL);
}

int xml_decode_response(const void *data, size_t length, const struct codec_limits *limits,
	struct value **ret_result, struct fault *fault)
{
	struct xml_document document CLEANUP_XML_DOCUMENT = {0};
	int r = xml_document_parse(data, length, limits, &document, fault);

	if (r < 0)
		return r;
	if (document.kind != XML_METHOD_RESPONSE)
		return fault_text(fault, -EBADMSG, "XML-RPC: a <methodCall> is no answer");
	if (document.fault)
		return take_xmlrpc_fault(document.fault, fault);
	if (document.params->array.n_items != 1)
		return fault_text(fault, -EBADMSG, "XML-RPC: an answer with %zu values, not one",
			document.params->array.n_items);
	struct value *answer = document.params->array.items[0];
	if (answer->type != VALUE_STRUCT) { /* system.listMethods */
		*ret_result = value_take_item(document.params, 0);
		return 0;
	}
	const char *status = value_find_string(answer, "Status", "");
	if (strcmp(status, "Failure") == 0)
		return take_failure(value_find(answer, "ErrorDescription"), fault);
	if (strcmp(status, "Success") != 0 || !value_find(answer, "Value"))
		return fault_text(fault, -EBADMSG,
			"XML-RPC: an answer with neither Success and a Value nor Failure");
	*ret_result = value_take(answer, "Value");
	return 0;
}

/* The grammar knows a value as what a method answers. On one line, so that places stay right. */
int xml_decode_fragment(const void *data, size_t length, const struct codec_limits *limits,
	struct value **ret_value, struct fault *fault)
{
	static const char before[] = "<methodResponse><params><param>";
	static const char after[] = "</param></params></methodResponse>";
	static const char declaration[] = "<?xml";
	struct xml_document document CLEANUP_XML_DOCUMENT = {0};
	struct buf text CLEANUP_BUF = BUF_INIT;
	struct codec_limits wider = *limits;
	const char *from = data;

	if (length > limits->max_bytes)
		return fault_text(fault, -EBADMSG, "XML-RPC: %zu bytes are more than %zu", length,
			limits->max_bytes);
	if (length > strlen(declaration) && memcmp(from, declaration, strlen(declaration)) == 0) {
		const char *end = memmem(from, length, "?>", 2);
		size_t skipped = end ? (size_t)(end + 2 - from) : 0;
		from += skipped;
		length -= skipped;
	}
	wider.max_bytes += strlen(before) + strlen(after);
	buf_append_string(&text, before);
	buf_append(&text, from, length);
	buf_append_string(&text, after);
	int r = xml_document_parse(text.data, text.length, &wider, &document, fault);
	if (r < 0)
		return r;
	if (document.fault || !document.params || document.params->array.n_items != 1)
		return fault_text(fault, -EBADMSG, "XML-RPC: not one <value>");
	*ret_value = value_take_item(document.params, 0);
	return 0;
}
