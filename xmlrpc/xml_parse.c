/* SPDX-License-Identifier: Apache-2.0 */
/* libxml2's SAX events drive a stack of open elements. No tree is built, nothing recurses, and each
 * limit is checked before what it bounds is allocated.
 *
 * A table says which element stands in which; three flags in it say how often and whether it must.
 * Any declaration of a DTD stops the parser: XML-RPC has none, and entities are how XML is abused.
 */
#include "xmlrpc/xml_parse.h"

#include "base/alloc.h"
#include "base/parse.h"

#include <errno.h>
#include <libxml/parser.h>
#include <libxml/parserInternals.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>

enum kind {
	KIND_DOCUMENT,
	KIND_METHOD_CALL,
	KIND_METHOD_RESPONSE,
	KIND_METHOD_NAME,
	KIND_PARAMS,
	KIND_PARAM,
	KIND_FAULT,
	KIND_VALUE,
	KIND_STRING,
	KIND_INT,
	KIND_BOOLEAN,
	KIND_DOUBLE,
	KIND_DATETIME,
	KIND_NIL,
	KIND_ARRAY,
	KIND_DATA,
	KIND_STRUCT,
	KIND_MEMBER,
	KIND_NAME,
};

#define BIT(kind) (1u << (kind))

struct element {
	const char *name;
	enum kind kind;
	unsigned parents;
	unsigned needs; /* children that must be there */
};

static const struct element elements[] = {
	{"methodCall", KIND_METHOD_CALL, BIT(KIND_DOCUMENT), BIT(KIND_METHOD_NAME)},
	{"methodResponse", KIND_METHOD_RESPONSE, BIT(KIND_DOCUMENT), 0},
	{"methodName", KIND_METHOD_NAME, BIT(KIND_METHOD_CALL), 0},
	{"params", KIND_PARAMS, BIT(KIND_METHOD_CALL) | BIT(KIND_METHOD_RESPONSE), 0},
	{"param", KIND_PARAM, BIT(KIND_PARAMS), BIT(KIND_VALUE)},
	{"fault", KIND_FAULT, BIT(KIND_METHOD_RESPONSE), BIT(KIND_VALUE)},
	{"value", KIND_VALUE, BIT(KIND_PARAM) | BIT(KIND_FAULT) | BIT(KIND_DATA) | BIT(KIND_MEMBER),
		0},
	{"string", KIND_STRING, BIT(KIND_VALUE), 0},
	{"int", KIND_INT, BIT(KIND_VALUE), 0},
	{"i4", KIND_INT, BIT(KIND_VALUE), 0},
	{"i8", KIND_INT, BIT(KIND_VALUE), 0},
	{"boolean", KIND_BOOLEAN, BIT(KIND_VALUE), 0},
	{"double", KIND_DOUBLE, BIT(KIND_VALUE), 0},
	{"dateTime.iso8601", KIND_DATETIME, BIT(KIND_VALUE), 0},
	{"nil", KIND_NIL, BIT(KIND_VALUE), 0},
	{"array", KIND_ARRAY, BIT(KIND_VALUE), BIT(KIND_DATA)},
	{"data", KIND_DATA, BIT(KIND_ARRAY), 0},
	{"struct", KIND_STRUCT, BIT(KIND_VALUE), 0},
	{"member", KIND_MEMBER, BIT(KIND_STRUCT), BIT(KIND_NAME) | BIT(KIND_VALUE)},
	{"name", KIND_NAME, BIT(KIND_MEMBER), 0},
};

/* Parents whose children may come any number of times. */
static const unsigned repeating = BIT(KIND_PARAMS) | BIT(KIND_DATA) | BIT(KIND_STRUCT);
/* Parents with at most one child of whatever kind. */
static const unsigned exclusive = BIT(KIND_DOCUMENT) | BIT(KIND_VALUE);
/* Elements whose text counts; elsewhere only white space may stand. A value is one of them while it
 * has no child. */
static const unsigned textual = BIT(KIND_METHOD_NAME) | BIT(KIND_STRING) | BIT(KIND_INT) |
				BIT(KIND_BOOLEAN) | BIT(KIND_DOUBLE) | BIT(KIND_DATETIME) |
				BIT(KIND_NAME);

struct frame {
	const struct element *element;
	unsigned seen;       /* kinds of the children so far */
	struct value *value; /* of this element, or of the child that ended */
	char *name;          /* of a member */
};

struct parse {
	xmlParserCtxt *context;
	const struct codec_limits *limits;
	struct xml_document *document;
	struct frame *frames;
	size_t n_frames;
	struct buf text; /* since the last tag */
	size_t depth;
	size_t n_values;
	char *error; /* NULL: none */
};

/* --- Errors -------------------------------------------------------------------------------------
 */

__attribute__((format(printf, 2, 3))) static void refuse(
	struct parse *parse, const char *format, ...)
{
	va_list args;

	if (parse->error)
		return;
	va_start(args, format);
	char *what CLEANUP_FREE = xvasprintf(format, args);
	va_end(args);
	int line = parse->context->input ? parse->context->input->line : 0;
	int column = parse->context->input ? parse->context->input->col : 0;
	parse->error = xasprintf("XML-RPC line %d column %d: %s", line, column, what);
	xmlStopParser(parse->context);
}

static struct frame *top(struct parse *parse)
{
	return &parse->frames[parse->n_frames - 1];
}

static struct frame *parent(struct parse *parse)
{
	return &parse->frames[parse->n_frames - 2];
}

/* --- Opening tags -------------------------------------------------------------------------------
 */

static const struct element *element_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(elements); i++)
		if (strcmp(elements[i].name, name) == 0)
			return &elements[i];
	return NULL;
}

static bool is_blank(const struct buf *text)
{
	return !text->data || strspn(text->data, " \t\r\n") == text->length;
}

/* What stands between tags must be white space; it is dropped. */
static bool drop_blank(struct parse *parse)
{
	if (!is_blank(&parse->text)) {
		refuse(parse, "text beside a tag within <%s>",
			parse->n_frames > 1 ? top(parse)->element->name : "document");
		return false;
	}
	parse->text.length = 0;
	if (parse->text.data)
		parse->text.data[0] = '\0';
	return true;
}

static bool may_open(struct parse *parse, const struct element *element, const char *name)
{
	const struct frame *frame = top(parse);
	enum kind above = frame->element->kind;

	if (!element && strcmp(name, "base64") == 0)
		refuse(parse, "<base64> is not used by this API; send text as <string>");
	else if (!element)
		refuse(parse, "unknown element <%.64s>", name);
	else if (!(element->parents & BIT(above)))
		refuse(parse, "<%s> cannot stand in <%s>", name, frame->element->name);
	else if ((BIT(above) & exclusive) && frame->seen)
		refuse(parse, "a second element, <%s>, in <%s>", name, frame->element->name);
	else if (!(BIT(above) & repeating) && (frame->seen & BIT(element->kind)))
		refuse(parse, "<%s> twice in <%s>", name, frame->element->name);
	else
		return true;
	return false;
}

static bool within_limits(struct parse *parse, enum kind kind)
{
	if (kind == KIND_VALUE && ++parse->n_values > parse->limits->max_values) {
		refuse(parse, "more than %zu values", parse->limits->max_values);
		return false;
	}
	if ((kind == KIND_ARRAY || kind == KIND_STRUCT) &&
		++parse->depth > parse->limits->max_depth) {
		refuse(parse, "arrays and structs nested deeper than %zu",
			parse->limits->max_depth);
		return false;
	}
	return true;
}

static void frame_push(struct parse *parse, const struct element *element)
{
	size_t n = parse->n_frames;

	if ((n & (n - 1)) == 0)
		parse->frames = xrealloc(parse->frames, n ? n * 2 : 1, sizeof(*parse->frames));
	parse->frames[parse->n_frames++] = (struct frame){.element = element};
}

static void on_start(void *user, const xmlChar *local_name, const xmlChar *prefix,
	const xmlChar *uri, int n_namespaces, const xmlChar **namespaces, int n_attributes,
	int n_defaulted, const xmlChar **attributes)
{
	struct parse *parse = user;
	const char *name = (const char *)local_name;
	const struct element *element = element_find(name);

	(void)prefix, (void)uri, (void)n_namespaces, (void)namespaces;
	(void)n_attributes, (void)n_defaulted, (void)attributes;
	if (parse->error || !drop_blank(parse) || !may_open(parse, element, name) ||
		!within_limits(parse, element->kind))
		return;
	top(parse)->seen |= BIT(element->kind);
	frame_push(parse, element);
	if (element->kind == KIND_DATA)
		top(parse)->value = value_new_array();
	else if (element->kind == KIND_STRUCT)
		top(parse)->value = value_new_struct();
}

/* --- Closing tags -------------------------------------------------------------------------------
 */

/* XML-RPC allows a leading plus sign in numbers. */
static const char *without_plus(const char *s)
{
	return *s == '+' ? s + 1 : s;
}

static struct value *scalar_parse(enum kind kind, const char *s)
{
	int64_t integer;
	double real;

	switch (kind) {
	case KIND_STRING:
		return value_new_string(s);
	case KIND_INT:
		return parse_int64(without_plus(s), &integer) < 0 ? NULL : value_new_int(integer);
	case KIND_BOOLEAN:
		if (strcmp(s, "0") != 0 && strcmp(s, "1") != 0)
			return NULL;
		return value_new_bool(*s == '1');
	case KIND_DOUBLE:
		return parse_double(s, &real) < 0 ? NULL : value_new_double(real);
	default:
		return datetime_parse(s, &integer) < 0 ? NULL : value_new_datetime(integer);
	}
}

static void end_scalar(struct parse *parse, const char *text)
{
	const struct element *element = top(parse)->element;
	struct value *value = scalar_parse(element->kind, text);

	if (!value) {
		refuse(parse, "\"%.64s\" is no %s", text, element->name);
		return;
	}
	parent(parse)->value = value;
}

static void end_value(struct parse *parse, const char *text)
{
	struct value *value CLEANUP_VALUE = TAKE_PTR(top(parse)->value);
	struct frame *above = parent(parse);

	if (!value)
		value = value_new_string(text);
	if (above->element->kind == KIND_DATA)
		value_append(above->value, TAKE_PTR(value));
	else
		above->value = TAKE_PTR(value);
}

static void end_member(struct parse *parse)
{
	struct frame *frame = top(parse);
	struct frame *above = parent(parse);

	if (value_find(above->value, frame->name))
		refuse(parse, "member \"%.64s\" twice in <struct>", frame->name);
	else
		value_set(above->value, frame->name, TAKE_PTR(frame->value));
}

static void end_method_response(struct parse *parse)
{
	unsigned seen = top(parse)->seen;

	parse->document->kind = XML_METHOD_RESPONSE;
	if (seen != BIT(KIND_PARAMS) && seen != BIT(KIND_FAULT))
		refuse(parse, "<methodResponse> needs one of <params> and <fault>");
}

static void frame_close(struct parse *parse, const char *text)
{
	struct frame *frame = top(parse);

	switch (frame->element->kind) {
	case KIND_METHOD_NAME:
		parse->document->method = xstrdup(text);
		break;
	case KIND_METHOD_RESPONSE:
		end_method_response(parse);
		break;
	case KIND_PARAM:
		value_append(parse->document->params, TAKE_PTR(frame->value));
		break;
	case KIND_FAULT:
		parse->document->fault = TAKE_PTR(frame->value);
		break;
	case KIND_NIL:
		parent(parse)->value = value_new_nil();
		break;
	case KIND_VALUE:
		end_value(parse, text);
		break;
	case KIND_ARRAY:
	case KIND_STRUCT:
		parse->depth--;
		parent(parse)->value = TAKE_PTR(frame->value);
		break;
	case KIND_DATA:
		parent(parse)->value = TAKE_PTR(frame->value);
		break;
	case KIND_MEMBER:
		end_member(parse);
		break;
	case KIND_NAME:
		parent(parse)->name = xstrdup(text);
		break;
	case KIND_DOCUMENT:
	case KIND_METHOD_CALL:
	case KIND_PARAMS:
		break;
	default:
		end_scalar(parse, text);
		break;
	}
}

static void frame_pop(struct parse *parse)
{
	struct frame *frame = top(parse);

	value_free(frame->value);
	free(frame->name);
	parse->n_frames--;
}

static void on_end(void *user, const xmlChar *local_name, const xmlChar *prefix, const xmlChar *uri)
{
	struct parse *parse = user;

	(void)local_name, (void)prefix, (void)uri;
	if (parse->error)
		return;
	const struct frame *frame = top(parse);
	unsigned missing = frame->element->needs & ~frame->seen;
	if (missing) {
		refuse(parse, "<%s> without %s", frame->element->name,
			missing & BIT(KIND_METHOD_NAME) ? "<methodName>"
			: missing & BIT(KIND_NAME)      ? "<name>"
			: missing & BIT(KIND_DATA)      ? "<data>"
							: "<value>");
		return;
	}
	bool is_text = (BIT(frame->element->kind) & textual) ||
		       (frame->element->kind == KIND_VALUE && !frame->seen);
	char *text CLEANUP_FREE = NULL;
	if (is_text)
		text = buf_take_string(&parse->text);
	else if (!drop_blank(parse))
		return;
	frame_close(parse, text ? text : "");
	frame_pop(parse);
}

/* --- The rest of SAX ----------------------------------------------------------------------------
 */

static void on_text(void *user, const xmlChar *data, int length)
{
	struct parse *parse = user;

	if (!parse->error)
		buf_append(&parse->text, data, (size_t)length);
}

static void on_dtd(
	void *user, const xmlChar *name, const xmlChar *external_id, const xmlChar *system_id)
{
	(void)name, (void)external_id, (void)system_id;
	refuse(user, "a document type declaration is not allowed");
}

static void on_error(void *user, xmlError *error)
{
	/* The context keeps the last error; without a handler libxml2 prints to standard error. */
	(void)user, (void)error;
}

static const xmlSAXHandler handler = {
	.initialized = XML_SAX2_MAGIC,
	.internalSubset = on_dtd,
	.externalSubset = on_dtd,
	.startElementNs = on_start,
	.endElementNs = on_end,
	.characters = on_text,
	.ignorableWhitespace = on_text,
	.cdataBlock = on_text,
	.serror = on_error,
};

/* --- The document -------------------------------------------------------------------------------
 */

/* Where the first byte stands that is not UTF-8. */
static size_t utf8_bad_at(const char *data, size_t length)
{
	size_t at = 0;

	while (at < length) {
		unsigned char lead = (unsigned char)data[at];
		size_t n = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
		if (n > length - at || !utf8_is_valid(data + at, n))
			break;
		at += n;
	}
	return at;
}

/* Shows the text that holds the bad byte, with what cannot be shown as "?". */
static int refuse_utf8(const char *data, size_t length, struct fault *fault)
{
	size_t bad = utf8_bad_at(data, length);
	size_t from = bad;
	char shown[65];
	size_t n = 0;

	while (from > 0 && bad - from < 32 && data[from - 1] != '>')
		from--;
	for (size_t i = from; i < length && n < sizeof(shown) - 1 && data[i] != '<'; i++)
		shown[n++] = (char)(data[i] >= 0x20 && data[i] < 0x7f ? data[i] : '?');
	shown[n] = '\0';
	return fault_set(
		fault, -EILSEQ, "INVALID_VALUE", "Invalid UTF-8 string in parameter", shown, NULL);
}

static int report(const struct parse *parse, struct fault *fault)
{
	const xmlError *error = &parse->context->lastError;

	if (parse->error)
		return fault_text(fault, -EBADMSG, "%s", parse->error);
	if (!error->message)
		return fault_text(fault, -EBADMSG, "XML-RPC: the document is not well-formed");
	return fault_text(fault, -EBADMSG, "XML-RPC line %d column %d: %.*s", error->line,
		error->int2, (int)strcspn(error->message, "\n"), error->message);
}

static int parse_run(struct parse *parse, const char *data, size_t length, struct fault *fault)
{
	static const struct element root = {.name = "document", .kind = KIND_DOCUMENT};
	const int options = XML_PARSE_NONET | XML_PARSE_IGNORE_ENC;

	*parse->context->sax = handler;
	parse->context->userData = parse;
	frame_push(parse, &root);
	xmlFreeDoc(xmlCtxtReadMemory(parse->context, data, (int)length, NULL, "UTF-8", options));
	int r = parse->error || !parse->context->wellFormed ? report(parse, fault) : 0;
	while (parse->n_frames)
		frame_pop(parse);
	free(parse->frames);
	free(parse->error);
	buf_free(&parse->text);
	return r;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;

int xml_document_parse(const void *data, size_t length, const struct codec_limits *limits,
	struct xml_document *document, struct fault *fault)
{
	struct parse parse = {.limits = limits, .document = document};

	*document = (struct xml_document){.params = value_new_array()};
	if (length > limits->max_bytes || length > INT_MAX)
		return fault_text(fault, -EBADMSG, "XML-RPC: %zu bytes; at most %zu are allowed",
			length, limits->max_bytes);
	if (length == 0)
		return fault_text(fault, -EBADMSG, "XML-RPC: the document is empty");
	if (!utf8_is_valid(data, length))
		return refuse_utf8(data, length, fault);
	pthread_once(&once, xmlInitParser);
	parse.context = xmlNewParserCtxt();
	if (!parse.context)
		return fault_text(fault, -ENOMEM, "XML-RPC: no memory for the parser");
	int r = parse_run(&parse, data, length, fault);
	xmlFreeParserCtxt(parse.context);
	return r;
}

void xml_document_clear(struct xml_document *document)
{
	free(document->method);
	value_free(document->params);
	value_free(document->fault);
	*document = (struct xml_document){0};
}
