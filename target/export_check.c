/* SPDX-License-Identifier: Apache-2.0 */
#include "target/export_check.h"

#include "base/cleanup.h"
#include "target/disk.h"
#include "target/tgt_mgmt.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define IQN_MAX    223 /* RFC 7143 4.2.7.1 */
#define USER_MAX   255
#define SECRET_MIN 16
#define SECRET_MAX 255 /* with more, no login ever succeeds */
#define SERIAL_MAX 36  /* longer ones are cut silently */
#define PATH_MAX_  1024

/* Lower case only: names are compared byte by byte, while RFC 7143 has them folded. */
static bool is_iqn(const char *name)
{
	if (!tgt_is_word(name, IQN_MAX, ".:-"))
		return false;
	for (; *name; name++)
		if (*name >= 'A' && *name <= 'Z')
			return false;
	return true;
}

static bool is_printable(const char *s)
{
	for (; *s; s++)
		if (*s < ' ' || *s > '~')
			return false;
	return true;
}

static bool is_clean_path(const char *path)
{
	if (!path || path[0] != '/' || strlen(path) > PATH_MAX_)
		return false;
	for (; *path; path++)
		if ((unsigned char)*path < ' ' || *path == 0x7f || *path == ',')
			return false;
	return true;
}

int export_check_params(const struct export_params *params, struct fault *fault)
{
	size_t n_secret = params->secret ? strlen(params->secret) : 0;

	if (!is_iqn(params->iqn))
		return fault_text(fault, -EINVAL,
			"export: target name \"%s\" must be 1 to %d of a-z 0-9 : . -",
			params->iqn ? params->iqn : "", IQN_MAX);
	if (!is_iqn(params->initiator))
		return fault_text(fault, -EINVAL,
			"export: initiator name \"%s\" must be 1 to %d of a-z 0-9 : . -",
			params->initiator ? params->initiator : "", IQN_MAX);
	if (!is_clean_path(params->path))
		return fault_text(fault, -EINVAL,
			"export: path \"%s\" must be absolute, at most %d bytes, without commas "
			"and control characters",
			params->path ? params->path : "", PATH_MAX_);
	if (!tgt_is_word(params->user, USER_MAX, ".-"))
		return fault_text(fault, -EINVAL,
			"export: user \"%s\" must be 1 to %d of A-Z a-z 0-9 . -",
			params->user ? params->user : "", USER_MAX);
	/* Never the secret itself: faults are logged. */
	if (n_secret < SECRET_MIN || n_secret > SECRET_MAX || !is_printable(params->secret))
		return fault_text(fault, -EINVAL,
			"export: the secret must be %d to %d printable ASCII characters",
			SECRET_MIN, SECRET_MAX);
	if (!tgt_is_word(params->serial, SERIAL_MAX, ".-"))
		return fault_text(fault, -EINVAL,
			"export: serial \"%s\" must be 1 to %d of A-Z a-z 0-9 . -",
			params->serial ? params->serial : "", SERIAL_MAX);
	return 0;
}

static int check_stat(
	const struct export_params *params, const struct stat *st, struct fault *fault)
{
	uint64_t size = (uint64_t)st->st_size;

	if (!S_ISREG(st->st_mode))
		return fault_text(fault, -EINVAL, "export: %s is not a regular file", params->path);
	if (st->st_nlink != 1)
		return fault_text(fault, -EINVAL, "export: %s has %ju names; one is allowed",
			params->path, (uintmax_t)st->st_nlink);
	/* tgtd shows an empty file as 2^64 sectors and cuts what is no whole sector. */
	if (size == 0 || size % DISK_SECTOR != 0)
		return fault_text(fault, -EINVAL,
			"export: %s has %" PRIu64 " bytes; a multiple of %d above 0 is allowed",
			params->path, size, DISK_SECTOR);
	if (size != params->size_bytes)
		return fault_text(fault, -EINVAL,
			"export: %s has %" PRIu64 " bytes, but %" PRIu64 " were announced",
			params->path, size, params->size_bytes);
	return 0;
}

int export_check_file(const struct export_params *params, struct export_identity *ret_identity,
	struct fault *fault)
{
	int fd CLEANUP_CLOSE = open(params->path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fault_errno(
			fault, -errno, "export: %s cannot be opened for writing", params->path);
	int r = check_stat(params, &st, fault);
	if (r < 0)
		return r;
	*ret_identity = (struct export_identity){
		.device = (uint64_t)st.st_dev,
		.inode = (uint64_t)st.st_ino,
		.size_bytes = (uint64_t)st.st_size,
	};
	return 0;
}
