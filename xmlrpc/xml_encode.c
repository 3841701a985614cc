/* SPDX-License-Identifier: Apache-2.0 */
/* XenAPI's form of XML-RPC, written by hand: some clients break on any byte that is not theirs. */
#include "xmlrpc/codec.h"

#include "base/parse.h"

#include <inttypes.h>
#include <string.h>

static const char prologue[] = "<?xml version=\"1.0\"?>";

static void append_char(struct buf *out, unsigned char c, bool is_utf8)
{
	switch (c) {
	case '&':
		buf_append_string(out, "&amp;");
		return;
	case '<':
		buf_append_string(out, "&lt;");
		return;
	case '>':
		buf_append_string(out, "&gt;");
		return;
	case '"':
		buf_append_string(out, "&quot;");
		return;
	case '\r':
		/* A parser reads a bare CR as LF (XML 1.0, 2.11). */
		buf_append_string(out, "&#13;");
		return;
	default:
		break;
	}
	if (c >= 0x80 && !is_utf8)
		buf_append_char(out, '?');
	else if (c >= 0x20 || c == '\t' || c == '\n')
		buf_append_char(out, (char)c);
}

/* U+FFFE and U+FFFF are no XML characters (XML 1.0, 2.2). */
static bool is_noncharacter(const char *s)
{
	return memcmp(s, "\xef\xbf", 2) == 0 && (unsigned char)s[2] >= 0xbe;
}

/* Goes out as it is; 0xef may begin a non-character. */
static bool is_plain(unsigned char c)
{
	return c >= 0x20 ? c != '&' && c != '<' && c != '>' && c != '"' && c != 0xef
			 : c == '\t' || c == '\n';
}

static void append_text(struct buf *out, const char *s)
{
	size_t length = strlen(s);
	bool is_utf8 = utf8_is_valid(s, length);

	while (*s) {
		size_t plain = 0;
		while (is_utf8 && is_plain((unsigned char)s[plain]))
			plain++;
		buf_append(out, s, plain);
		s += plain;
		if (!*s)
			break;
		if (is_utf8 && *s == '\xef') {
			if (!is_noncharacter(s))
				buf_append(out, s, 3);
			s += 3;
			continue;
		}
		append_char(out, (unsigned char)*s, is_utf8);
		s++;
	}
}

static void append_value(struct buf *out, const struct value *value);

static void append_array(struct buf *out, const struct value *value)
{
	buf_append_string(out, "<array><data>");
	for (size_t i = 0; i < value->array.n_items; i++)
		append_value(out, value->array.items[i]);
	buf_append_string(out, "</data></array>");
}

static void append_struct(struct buf *out, const struct value *value)
{
	buf_append_string(out, "<struct>");
	for (size_t i = 0; i < value->record.n_members; i++) {
		buf_append_string(out, "<member><name>");
		append_text(out, value->record.members[i].name);
		buf_append_string(out, "</name>");
		append_value(out, value->record.members[i].value);
		buf_append_string(out, "</member>");
	}
	buf_append_string(out, "</struct>");
}

static void append_datetime(struct buf *out, int64_t seconds)
{
	char *text CLEANUP_FREE = datetime_format(seconds);

	buf_append_string(out, "<dateTime.iso8601>");
	buf_append_string(out, text);
	buf_append_string(out, "</dateTime.iso8601>");
}

static void append_value(struct buf *out, const struct value *value)
{
	buf_append_string(out, "<value>");
	switch (value->type) {
	case VALUE_STRING:
		append_text(out, value->string);
		break;
	case VALUE_INT:
		buf_printf(out, "%" PRId64, value->integer);
		break;
	case VALUE_I4:
		buf_printf(out, "<i4>%" PRId64 "</i4>", value->integer);
		break;
	case VALUE_BOOL:
		buf_printf(out, "<boolean>%d</boolean>", value->boolean);
		break;
	case VALUE_DOUBLE:
		buf_printf(out, "<double>%.16g</double>", value->real);
		break;
	case VALUE_DATETIME:
		append_datetime(out, value->integer);
		break;
	case VALUE_ARRAY:
		append_array(out, value);
		break;
	case VALUE_STRUCT:
		append_struct(out, value);
		break;
	case VALUE_NIL:
		buf_append_string(out, "<nil/>");
		break;
	}
	buf_append_string(out, "</value>");
}

static void append_result(struct buf *out, const struct value *result)
{
	if (result)
		append_value(out, result);
	else
		buf_append_string(out, "<value></value>");
}

void xml_encode_call(const char *method, const struct value *params, struct buf *out)
{
	buf_append_string(out, prologue);
	buf_append_string(out, "<methodCall><methodName>");
	append_text(out, method);
	buf_append_string(out, "</methodName><params>");
	for (size_t i = 0; i < params->array.n_items; i++) {
		buf_append_string(out, "<param>");
		append_value(out, params->array.items[i]);
		buf_append_string(out, "</param>");
	}
	buf_append_string(out, "</params></methodCall>");
}

static void begin_response(struct buf *out)
{
	buf_append_string(out, prologue);
	buf_append_string(out, "<methodResponse><params><param>");
}

static void end_response(struct buf *out)
{
	buf_append_string(out, "</param></params></methodResponse>");
}

void xml_encode_bare(const struct value *result, struct buf *out)
{
	begin_response(out);
	append_result(out, result);
	end_response(out);
}

void xml_encode_success(const struct value *result, struct buf *out)
{
	begin_response(out);
	buf_append_string(out, "<value><struct><member><name>Status</name><value>Success</value>"
			       "</member><member><name>Value</name>");
	append_result(out, result);
	buf_append_string(out, "</member></struct></value>");
	end_response(out);
}

static void append_string_value(struct buf *out, const char *s)
{
	buf_append_string(out, "<value>");
	append_text(out, s);
	buf_append_string(out, "</value>");
}

void xml_encode_failure(const struct fault *failure, struct buf *out)
{
	begin_response(out);
	buf_append_string(out,
		"<value><struct><member><name>Status</name><value>Failure</value>"
		"</member><member><name>ErrorDescription</name><value><array><data>");
	append_string_value(out, failure->code);
	for (size_t i = 0; i < failure->n_params; i++)
		append_string_value(out, failure->params[i]);
	buf_append_string(out, "</data></array></value></member></struct></value>");
	end_response(out);
}

char *xml_encode_fragment(const struct value *value)
{
	struct buf out CLEANUP_BUF = BUF_INIT;

	append_result(&out, value);
	return buf_take_string(&out);
}
