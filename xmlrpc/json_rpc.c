/* SPDX-License-Identifier: Apache-2.0 */
/* JSON-RPC 1.0 and 2.0 in XenAPI's form: positional parameters, the error's code always 1, its
 * message XenAPI's code and its data the parameters. */
#include "xmlrpc/codec.h"

#include "base/alloc.h"
#include "base/json.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

void json_id_clear(struct json_id *id)
{
	free(id->text);
	*id = (struct json_id){0};
}

static int refuse(struct fault *fault, const char *what)
{
	return fault_text(fault, -EBADMSG, "JSON-RPC: %s", what);
}

static int read_version(
	const struct value *request, enum json_version *ret_version, struct fault *fault)
{
	const struct value *version = value_find(request, "jsonrpc");

	if (version && strcmp(value_string(version, ""), "2.0") != 0)
		return refuse(fault, "member jsonrpc must be \"2.0\", or absent for version 1.0");
	*ret_version = version ? JSON_RPC_2 : JSON_RPC_1;
	return 0;
}

static int read_id(const struct value *request, struct json_id *ret_id, struct fault *fault)
{
	const struct value *id = value_find(request, "id");

	if (id && id->type == VALUE_INT)
		*ret_id = (struct json_id){.number = id->integer};
	else if (id && id->type == VALUE_STRING)
		*ret_id = (struct json_id){.is_string = true, .text = xstrdup(id->string)};
	else
		return refuse(fault, "member id must be an integer or a string");
	return 0;
}

static int read_call(struct value *request, char **ret_method, struct value **ret_params,
	enum json_version *ret_version, struct json_id *ret_id, struct fault *fault)
{
	if (request->type != VALUE_STRUCT)
		return refuse(fault, "a request must be one object (batches are not served)");
	const char *method = value_find_string(request, "method", NULL);
	if (!method)
		return refuse(fault, "member method must be a string");
	struct value *params = value_find(request, "params");
	if (params && params->type != VALUE_ARRAY)
		return refuse(fault, "member params must be an array");
	int r = read_version(request, ret_version, fault);
	if (r < 0)
		return r;
	r = read_id(request, ret_id, fault);
	if (r < 0)
		return r;
	*ret_method = xstrdup(method);
	*ret_params = params ? value_take(request, "params") : value_new_array();
	return 0;
}

int json_decode_call(const void *data, size_t length, const struct codec_limits *limits,
	char **ret_method, struct value **ret_params, enum json_version *ret_version,
	struct json_id *ret_id, struct fault *fault)
{
	/* The envelope is one more level and up to five more values. */
	const struct json_limits json_limits = {
		.max_depth = limits->max_depth + 2, .max_values = limits->max_values + 5};
	struct value *request CLEANUP_VALUE = NULL;

	if (length > limits->max_bytes)
		return fault_text(fault, -EBADMSG, "JSON-RPC: %zu bytes; at most %zu are allowed",
			length, limits->max_bytes);
	int r = json_decode(data, length, &json_limits, &request, fault);
	if (r < 0)
		return r;
	return read_call(request, ret_method, ret_params, ret_version, ret_id, fault);
}

static void append_string(struct buf *out, const char *s)
{
	struct value *value CLEANUP_VALUE = value_new_string(s);

	json_encode(value, out);
}

static void append_id(struct buf *out, const struct json_id *id)
{
	buf_append_string(out, ",\"id\":");
	if (id->is_string)
		append_string(out, id->text);
	else
		buf_printf(out, "%" PRId64, id->number);
	buf_append_char(out, '}');
}

void json_encode_success(const struct value *result, enum json_version version,
	const struct json_id *id, struct buf *out)
{
	buf_append_string(
		out, version == JSON_RPC_2 ? "{\"jsonrpc\":\"2.0\",\"result\":" : "{\"result\":");
	if (result)
		json_encode(result, out);
	else
		buf_append_string(out, "\"\"");
	if (version == JSON_RPC_1)
		buf_append_string(out, ",\"error\":null");
	append_id(out, id);
}

static void append_params(struct buf *out, const struct fault *failure, const char *separator)
{
	for (size_t i = 0; i < failure->n_params; i++) {
		buf_append_string(out, i ? "," : separator);
		append_string(out, failure->params[i]);
	}
	buf_append_char(out, ']');
}

void json_encode_failure(const struct fault *failure, enum json_version version,
	const struct json_id *id, struct buf *out)
{
	if (version == JSON_RPC_2) {
		buf_append_string(out, "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,\"message\":");
		append_string(out, failure->code);
		buf_append_string(out, ",\"data\":[");
		append_params(out, failure, "");
		buf_append_char(out, '}');
	} else {
		buf_append_string(out, "{\"result\":null,\"error\":[");
		append_string(out, failure->code);
		append_params(out, failure, ",");
	}
	append_id(out, id);
}
