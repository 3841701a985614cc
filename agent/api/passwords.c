/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/passwords.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/parse.h"

#include <crypt.h>
#include <errno.h>
#include <string.h>

_Static_assert(PASSWORD_MAX_BYTES < CRYPT_MAX_PASSPHRASE_SIZE, "libcrypt takes it whole");

int user_name_check(const char *name, struct fault *fault)
{
	size_t length = strlen(name);
	bool is_right = length && length <= USER_NAME_MAX_BYTES && utf8_is_valid(name, length);

	for (const char *c = name; *c; c++)
		is_right &= *c >= ' ' || *c < 0;
	if (is_right && !strchr(name, 0x7f))
		return 0;
	return fault_text(fault, -EINVAL,
		"\"%s\" is no user name: 1 to %d bytes of UTF-8 without control characters", name,
		USER_NAME_MAX_BYTES);
}

int password_check(const char *password, struct fault *fault)
{
	size_t length = strlen(password);

	if (length && length <= PASSWORD_MAX_BYTES && utf8_is_valid(password, length))
		return 0;
	return fault_text(fault, -EINVAL, "a password is 1 to %d bytes of UTF-8; this one has %zu",
		PASSWORD_MAX_BYTES, length);
}

static struct crypt_data *crypt_free(struct crypt_data *data)
{
	if (data)
		explicit_bzero(data, sizeof(*data));
	free(data);
	return NULL;
}

DEFINE_CLEANUP(struct crypt_data *, crypt_free)
#define CLEANUP_CRYPT CLEANUP(cleanup_crypt_free)

int password_hash(const char *password, char **ret_hash, struct fault *fault)
{
	char setting[CRYPT_GENSALT_OUTPUT_SIZE];
	struct crypt_data *data CLEANUP_CRYPT = xcalloc(1, sizeof(*data));

	if (!crypt_gensalt_rn("$y$", 0, NULL, 0, setting, sizeof(setting))) {
		int error = -errno;
		return fault_errno(fault, error, "libcrypt cannot make yescrypt hashes");
	}
	const char *hash = crypt_r(password, setting, data);
	if (!hash || hash[0] == '*')
		return fault_text(fault, -EINVAL, "libcrypt cannot hash this password");
	*ret_hash = xstrdup(hash);
	return 0;
}

bool password_is_in_pam(const char *hash)
{
	return hash && strcmp(hash, PASSWORD_IN_PAM) == 0;
}

/* Takes the same time wherever the two differ. */
static bool text_is_same(const char *a, const char *b)
{
	size_t length = strlen(a);
	unsigned char difference = 0;

	if (strlen(b) != length)
		return false;
	for (size_t i = 0; i < length; i++)
		difference |= (unsigned char)(a[i] ^ b[i]);
	return difference == 0;
}

bool password_is(const char *password, const char *hash)
{
	struct crypt_data *data CLEANUP_CRYPT = xcalloc(1, sizeof(*data));
	const char *found = crypt_r(password, hash, data);

	return found && found[0] != '*' && text_is_same(found, hash);
}
