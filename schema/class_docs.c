/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "schema/classes.h"

#include <string.h>

static const char *const type_texts[] = {
	[FIELD_STRING] = "string",
	[FIELD_INT] = "int",
	[FIELD_BOOL] = "bool",
	[FIELD_FLOAT] = "float",
	[FIELD_DATETIME] = "datetime",
	[FIELD_ENUM] = "enum",
	[FIELD_SET_STRING] = "set of strings",
	[FIELD_SET_INT] = "set of ints",
	[FIELD_MAP] = "map of string to string",
	[FIELD_MAP_ANY] = "map",
};

static const char *const access_texts[] = {
	[FIELD_RO] = "read",
	[FIELD_CTOR] = "at create",
	[FIELD_RW] = "read, write",
};

/* "a|b" as "a, b" */
static char *choices_text(const char *choices)
{
	struct buf out CLEANUP_BUF = BUF_INIT;

	for (; *choices; choices++) {
		if (*choices == '|')
			buf_append_string(&out, ", ");
		else
			buf_append_char(&out, *choices);
	}
	return buf_take_string(&out);
}

char *class_field_type_text(const struct class_field *field)
{
	if (field->type == FIELD_REF)
		return xasprintf("%s ref", field->of);
	if (field->type == FIELD_SET_REF)
		return xasprintf("set of %s refs", field->of);
	if (field->type == FIELD_DERIVED)
		return xasprintf("set of %.*s refs", (int)strcspn(field->of, "."), field->of);
	if (!field->of)
		return xstrdup(type_texts[field->type]);
	char *choices CLEANUP_FREE = choices_text(field->of);
	return xasprintf("%s (%s)", type_texts[field->type], choices);
}

void class_list_print_markdown(FILE *out)
{
	for (size_t i = 0; i < n_classes; i++) {
		const struct class *class = &classes[i];
		fprintf(out, "### %s\n\n%s\n\n", class->name, class->doc);
		fprintf(out, "| field | type | access | default | meaning |\n");
		fprintf(out, "|---|---|---|---|---|\n");
		for (size_t j = 0; j < class->n_fields; j++) {
			const struct class_field *field = &class->fields[j];
			char *type CLEANUP_FREE = class_field_type_text(field);
			fprintf(out, "| %s | %s | %s | %s | %s |\n", field->name, type,
				access_texts[field->access], field->fallback ? field->fallback : "",
				field->doc ? field->doc : "");
		}
		fputc('\n', out);
	}
}
