/* SPDX-License-Identifier: Apache-2.0 */
/* docs/api.md, made of the class list and the method table. */
#include "agent/api/accessors.h"
#include "agent/api/context.h"
#include "agent/api/transfers.h"
#include "schema/classes.h"

#include <string.h>

static const char *access_name(enum field_access access)
{
	switch (access) {
	case FIELD_RO:
		return "read";
	case FIELD_CTOR:
		return "create";
	case FIELD_RW:
		break;
	}
	return "read, write";
}

static const char *param_type_name(const struct param *param)
{
	static const char *const names[] = {
		[PARAM_STRING] = "string",
		[PARAM_INT] = "int",
		[PARAM_BOOL] = "bool",
		[PARAM_DOUBLE] = "float",
		[PARAM_DATETIME] = "datetime",
		[PARAM_MAP] = "(string -> string) map",
		[PARAM_SET] = "string set",
		[PARAM_STRUCT] = "struct",
		[PARAM_ARRAY] = "array",
		[PARAM_ANY] = "any",
	};

	return param->doc ? param->doc : names[param->type];
}

/* A | would end the cell of a table. */
static void print_cell(const char *text, FILE *out)
{
	for (; *text; text++)
		fputs(*text == '|' ? "\\|" : (char[]){*text, '\0'}, out);
}

static void print_fields(const struct class *class, FILE *out)
{
	fprintf(out, "| field | type | access | |\n|---|---|---|---|\n");
	for (size_t i = 0; i < class->n_fields; i++) {
		const struct class_field *field = &class->fields[i];
		char *type CLEANUP_FREE = accessors_field_type(class, field);
		fprintf(out, "| %s | %s | %s | ", field->name, type,
			class->hidden ? "read" : access_name(field->access));
		if (field->doc)
			print_cell(field->doc, out);
		if (field->type == FIELD_ENUM) {
			fputs(field->doc ? ": " : "", out);
			print_cell(field->of, out);
		}
		fputs(" |\n", out);
	}
}

/* "VM.create(VM record args) -> VM ref" */
static void print_signature(const struct method *method, FILE *out)
{
	fprintf(out, "`%s(", method->name);
	for (size_t i = 0; i < method->n_params; i++) {
		if (i == method->n_mandatory)
			fputs(i ? " [" : "[", out);
		fprintf(out, "%s%s %s", i ? ", " : "", param_type_name(&method->params[i]),
			method->params[i].name);
	}
	fprintf(out, "%s) -> %s`", method->n_mandatory < method->n_params ? "]" : "",
		method->result);
}

/* Accessors of single fields follow from the table of fields. */
static bool is_listed(const struct method *method, const char *class_name)
{
	size_t length = strlen(class_name);

	if (strncmp(method->name, class_name, length) != 0 || method->name[length] != '.')
		return false;
	return !accessors_is_field_row(method);
}

static void print_methods(struct dispatcher *dispatcher, const char *class_name, FILE *out)
{
	const struct method *const *methods;
	size_t n = dispatcher_methods(dispatcher, &methods);

	fputc('\n', out);
	for (size_t i = 0; i < n; i++) {
		const struct method *method = methods[i];
		if (!is_listed(method, class_name))
			continue;
		fputs("- ", out);
		print_signature(method, out);
		fprintf(out, "%s: %s", method->flags & METHOD_ASYNC ? " (also Async.)" : "",
			method->doc);
		if (!(method->flags & (METHOD_NO_SESSION | METHOD_PEER | METHOD_POOL)) &&
			method->role != USER_READ_ONLY)
			fprintf(out, " Role %s.", role_name((enum user_role)method->role));
		fputc('\n', out);
	}
	fputc('\n', out);
}

static const char head[] =
	"# The API\n"
	"\n"
	"Made by `tests/lint/check-api.sh --write` from the class list (`schema/`) and the method "
	"table\n"
	"(`agent/api/`); not edited by hand.\n"
	"\n"
	"XML-RPC at `/` (any path) and JSON-RPC at `/jsonrpc`, as XenAPI has them. The first\n"
	"parameter of each method is the session ref, left out below, except for\n"
	"`session.login_with_password` and `system.listMethods`. Parameters in `[ ]` may be left\n"
	"out.\n"
	"\n"
	"A method says the least role of a user that may call it, if that is not read-only: each "
	"role may do all that those "
	"after it\n"
	"may, of pool-admin, pool-operator, vm-power-admin, vm-admin, vm-operator, read-only. "
	"Fields "
	"are for\n"
	"every user to read; setting one of a VM, VBD, VDI, VIF or network needs vm-admin, of a "
	"task\n"
	"vm-operator, of any other class pool-operator. Others get `RBAC_PERMISSION_DENIED "
	"[method, "
	"text]`.\n"
	"\n"
	"Each field `f` has `get_f(self)`. Fields with access *write* have `set_f(self, value)`,\n"
	"maps also `add_to_f(self, key, value)` and `remove_from_f(self, key)`, sets of strings\n"
	"`add_f(self, value)` and `remove_f(self, value)`. Fields with access *create* may be "
	"given\n"
	"to `create` only; members of a record given to `create` that cannot be set are passed "
	"over.\n"
	"\n"
	"`get_all_where(expr)` and `get_all_records_where(expr)` take expressions made of\n"
	"`field \"name\" = \"value\"`, `and`, `or`, `not`, `true`, `false` and parentheses; "
	"`map__key`\n"
	"names an entry of a map.\n"
	"\n";

/* Classes without objects, in the order of the page. */
static const char *const other_classes[][2] = {
	{"event", "What has changed."},
	{"user", "Who may log in, and what they may do."},
	{"doctor", "What is on a host that nobody accounts for."},
	{"system", "The server itself."},
	{"Peer",
		"Between agents, with the session that host.migrate_receive made for one move; not "
		"in system.listMethods."},
};

void api_print_docs(struct api *api, FILE *out)
{
	fputs(head, out);
	for (size_t i = 0; i < n_classes; i++) {
		fprintf(out, "## %s\n\n%s\n\n", classes[i].name, classes[i].doc);
		print_fields(&classes[i], out);
		print_methods(api->dispatcher, classes[i].name, out);
	}
	for (size_t i = 0; i < ARRAY_SIZE(other_classes); i++) {
		fprintf(out, "## %s\n\n%s\n", other_classes[i][0], other_classes[i][1]);
		print_methods(api->dispatcher, other_classes[i][0], out);
	}
	transfers_print_docs(out);
}
