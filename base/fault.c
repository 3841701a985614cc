/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fault.h"

#include "base/alloc.h"
#include "base/buf.h"

#include <stdarg.h>
#include <string.h>

void fault_clear(struct fault *fault)
{
	if (!fault)
		return;
	for (size_t i = 0; i < fault->n_params; i++)
		free(fault->params[i]);
	free(fault->params);
	free(fault->code);
	*fault = (struct fault)FAULT_INIT;
}

void fault_add_param(struct fault *fault, const char *param)
{
	if (!fault)
		return;
	fault->params = xrealloc(fault->params, fault->n_params + 1, sizeof(*fault->params));
	fault->params[fault->n_params++] = xstrdup(param ? param : "");
}

static void fault_begin(struct fault *fault, const char *code)
{
	fault_clear(fault);
	fault->code = xstrdup(code);
}

int(fault_set)(struct fault *fault, int error, const char *code, ...)
{
	const char *param;
	va_list args;

	if (!fault)
		return error;
	/* A parameter may belong to the very fault that is replaced. */
	struct fault old = *fault;
	*fault = (struct fault)FAULT_INIT;
	fault_begin(fault, code);
	va_start(args, code);
	while ((param = va_arg(args, const char *)))
		fault_add_param(fault, param);
	va_end(args);
	fault_clear(&old);
	return error;
}

int(fault_errno)(struct fault *fault, int error, const char *format, ...)
{
	va_list args;

	if (!fault)
		return error;
	va_start(args, format);
	char *text CLEANUP_FREE = xvasprintf(format, args);
	va_end(args);
	char reason[128];
	char *full CLEANUP_FREE =
		xasprintf("%s: %s", text, strerror_r(-error, reason, sizeof(reason)));
	return fault_set(fault, error, "INTERNAL_ERROR", full, NULL);
}

int(fault_text)(struct fault *fault, int error, const char *format, ...)
{
	va_list args;

	if (!fault)
		return error;
	va_start(args, format);
	char *text CLEANUP_FREE = xvasprintf(format, args);
	va_end(args);
	return fault_set(fault, error, "INTERNAL_ERROR", text, NULL);
}

void fault_move(struct fault *fault, struct fault *src)
{
	if (fault == src)
		return;
	if (!fault) {
		fault_clear(src);
		return;
	}
	fault_clear(fault);
	*fault = *src;
	*src = (struct fault)FAULT_INIT;
}

void fault_copy(struct fault *fault, const struct fault *src)
{
	/* Copied before anything is dropped: the two may be the same. */
	struct fault copy = {.code = xstrdup(src->code)};

	for (size_t i = 0; i < src->n_params; i++)
		fault_add_param(&copy, src->params[i]);
	fault_move(fault, &copy);
}

bool fault_is(const struct fault *fault, const char *code)
{
	return fault && fault->code && strcmp(fault->code, code) == 0;
}

char *fault_describe(const struct fault *fault)
{
	struct buf text CLEANUP_BUF = BUF_INIT;

	buf_append_string(&text, fault->code ? fault->code : "no error");
	for (size_t i = 0; i < fault->n_params; i++)
		buf_printf(&text, "%s%s", i ? ", " : ": ", fault->params[i]);
	return buf_take_string(&text);
}
