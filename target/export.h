/* SPDX-License-Identifier: Apache-2.0 */
/* "This disk, to this initiator": one target with LUN 1 on a fresh file, one initiator name, one
 * CHAP account, a serial that names migration, disk and generation. */
#ifndef FERRY_TARGET_EXPORT_H
#define FERRY_TARGET_EXPORT_H

#include "base/fault.h"
#include "target/tgt.h"

#include <stdint.h>

#define EXPORT_LUN 1

struct export_params {
	const char *iqn;  /* [a-z0-9:.-], at most 223 characters (RFC 7143 4.2.7) */
	const char *path; /* absolute, no ',' or control characters, regular file, size > 0 and a
			   * multiple of 512, writable */
	const char *initiator; /* IQN: the only one that may log in */
	const char *user;      /* CHAP; [A-Za-z0-9.-]; of this export alone in this tgtd */
	const char *secret;    /* 16..255 printable characters */
	const char
		*serial; /* scsi_sn and scsi_id: [A-Za-z0-9.-], at most 36; unique per generation.
			  * Initiators read it with leading spaces, filled up to 36 (VPD 0x80). */
	uint64_t size_bytes; /* must equal the file's */
};

/* What a file must still be when it is sealed. */
struct export_identity {
	uint64_t device;
	uint64_t inode;
	uint64_t size_bytes;
};

/* Makes the export and reads it back (path, size, writable, one account); the initiator is bound
 * last. tid: never used before in the life of this tgtd. On failure nothing of it is left. */
int export_add(struct tgt *tgt, uint32_t tid, const struct export_params *params,
	struct export_identity *ret_identity, struct fault *fault);

/* Withdraws it for good, under load too (tgt 1.0.85: readonly, counters equal, offline, kick each
 * connection, wait until no nexus is left, delete target, delete account). When this returns 0
 * nothing can write through it any more. Bounded by 10 s; if tgtd does not obey, it is killed,
 * which is as good a fence: 0 too. */
int export_withdraw(struct tgt *tgt, uint32_t tid, const char *user, struct fault *fault);

/* Checks that path is still the file of identity (one link, same inode and size: else -ESTALE),
 * then fsyncs file and directory. A failed fsync is final: the image is bad (-EIO with the fault
 * saying so). */
int export_settle(const char *path, const struct export_identity *identity, struct fault *fault);

#endif
