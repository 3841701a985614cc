/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/pool/membership.h"

#include "agent/pool/replica.h"
#include "base/alloc.h"
#include "base/io.h"
#include "base/json.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#define MAX_BYTES 65536

static char *file_of(const char *state_dir, enum membership_kind kind)
{
	static const char *const suffixes[] = {[MEMBERSHIP_FULL] = "",
		[MEMBERSHIP_JOINING] = ".joining",
		[MEMBERSHIP_OVERRULED] = ".overruled"};

	return xasprintf("%s/membership%s", state_dir, suffixes[kind]);
}

void membership_clear(struct membership *membership)
{
	free(membership->host);
	free(membership->url);
	free(membership->fingerprint);
	free(membership->secret);
	free(membership->coordinator);
	*membership = (struct membership){0};
}

static int read_one(const char *state_dir, enum membership_kind kind,
	struct membership *ret_membership, struct fault *fault)
{
	char *path CLEANUP_FREE = file_of(state_dir, kind);
	struct buf text CLEANUP_BUF = BUF_INIT;
	struct value *value CLEANUP_VALUE = NULL;
	int r = io_read_file(path, MAX_BYTES, &text);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return fault_errno(fault, r, "cannot read %s", path);
	r = json_decode(text.data, text.length, NULL, &value, fault);
	const char *host = value_find_string(value, "host", "");
	const char *secret = value_find_string(value, "secret", "");
	if (r < 0 || !*host || !*secret)
		return fault_text(fault, -EBADMSG,
			"%s is damaged: restore it, or remove it to make this host a pool of its "
			"own",
			path);
	*ret_membership = (struct membership){
		.host = xstrdup(host),
		.url = xstrdup(value_find_string(value, "url", "")),
		.fingerprint = xstrdup(value_find_string(value, "fingerprint", "")),
		.secret = xstrdup(secret),
		.coordinator = xstrdup(value_find_string(value, "coordinator", "")),
		.term = value_find_int(value, "term", 0),
		.kind = kind,
	};
	return 1;
}

int membership_load(const char *state_dir, struct membership *ret_membership, struct fault *fault)
{
	int r = 0;

	for (int kind = MEMBERSHIP_FULL; r == 0 && kind <= MEMBERSHIP_OVERRULED; kind++)
		r = read_one(state_dir, (enum membership_kind)kind, ret_membership, fault);
	return r;
}

static int remove_one(const char *state_dir, enum membership_kind kind, struct fault *fault)
{
	char *path CLEANUP_FREE = file_of(state_dir, kind);

	if (unlink(path) < 0 && errno != ENOENT) {
		int error = -errno;
		return fault_errno(fault, error, "cannot remove %s", path);
	}
	int r = io_sync_parent(path);
	return r < 0 ? fault_errno(fault, r, "cannot remove %s", path) : 0;
}

int membership_store(
	const char *state_dir, const struct membership *membership, struct fault *fault)
{
	char *path CLEANUP_FREE = file_of(state_dir, membership->kind);
	struct value *value CLEANUP_VALUE = value_new_struct();
	struct buf text CLEANUP_BUF = BUF_INIT;

	value_set_string(value, "host", membership->host);
	value_set_string(value, "url", membership->url);
	value_set_string(value, "fingerprint", membership->fingerprint);
	value_set_string(value, "secret", membership->secret);
	value_set_string(value, "coordinator", membership->coordinator);
	value_set_int(value, "term", membership->term);
	json_encode(value, &text);
	int r = io_replace_file(path, text.data, text.length, 0600);
	if (r < 0)
		return fault_errno(fault, r, "cannot write %s", path);
	return membership->kind == MEMBERSHIP_FULL
		       ? remove_one(state_dir, MEMBERSHIP_OVERRULED, fault)
		       : 0;
}

int membership_confirm(const char *state_dir, struct fault *fault)
{
	char *from CLEANUP_FREE = file_of(state_dir, MEMBERSHIP_JOINING);
	char *to CLEANUP_FREE = file_of(state_dir, MEMBERSHIP_FULL);
	int r = replica_remove(state_dir, fault); /* of another pool */

	if (r < 0)
		return r;
	if (rename(from, to) < 0) {
		int error = -errno;
		return fault_errno(fault, error, "cannot rename %s", from);
	}
	r = io_sync_parent(to);
	return r < 0 ? fault_errno(fault, r, "cannot store %s", to) : 0;
}

int membership_remove(const char *state_dir, struct fault *fault)
{
	int r = remove_one(state_dir, MEMBERSHIP_JOINING, fault);

	if (r == 0)
		r = remove_one(state_dir, MEMBERSHIP_OVERRULED, fault);
	if (r == 0)
		r = remove_one(state_dir, MEMBERSHIP_FULL, fault);
	return r < 0 ? r : replica_remove(state_dir, fault);
}
