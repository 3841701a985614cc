/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/storage/private.h"
#include "base/alloc.h"
#include "base/parse.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int set_failure(struct fault *fault, int error, enum sr_failure number, const char *text)
{
	char code[40];

	snprintf(code, sizeof(code), "SR_BACKEND_FAILURE_%d", (int)number);
	return fault_set(fault, error, code, "", text, "", NULL);
}

int(sr_fault)(struct fault *fault, int error, enum sr_failure number, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	char *text CLEANUP_FREE = xvasprintf(format, args);
	va_end(args);
	return set_failure(fault, error, number, text);
}

int sr_fault_from_disk(struct fault *fault, int error, enum sr_failure number)
{
	if (!fault)
		return error;
	char *text CLEANUP_FREE =
		xstrdup(fault->n_params ? fault->params[0] : "the file system reported an error");

	if (error == -ENOSPC || error == -EDQUOT)
		number = SR_FAILURE_NO_SPACE;
	if (error == -EFBIG)
		number = SR_FAILURE_VDI_SIZE;
	return set_failure(fault, error, number, text);
}

bool storage_name_is_safe(const char *name)
{
	if (!*name || !utf8_is_valid(name, strlen(name)))
		return false;
	for (const char *c = name; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f || *c == ',')
			return false;
	return true;
}

int storage_image_path(const char *dir, const char *location, char **ret_path, struct fault *fault)
{
	if (!storage_name_is_safe(location) || strchr(location, '/') || *location == '.')
		return sr_fault(fault, -EINVAL, SR_FAILURE_VDI_UNAVAILABLE,
			"the VDI's location \"%s\" is not the name of an image file in %s",
			location, dir);
	*ret_path = xasprintf("%s/%s", strcmp(dir, "/") == 0 ? "" : dir, location);
	return 0;
}
