/* SPDX-License-Identifier: Apache-2.0 */
/* What goes from the sender to the receiver, inside TLS: blocks, so that bytes can be made fewer
 * where the link is what they wait for.
 *
 *     offset  bytes
 *     0       1       kind: 0 bytes as they are, 1 a zstd frame
 *     1       3       length of what follows, big endian, 1 to BLOCK_MAX_BYTES
 *     4       -       the bytes; a frame gives 1 to BLOCK_BYTES of them
 *
 * Each frame stands for itself: whether a block is packed is decided block by block. */
#ifndef FERRY_AGENT_TUNNEL_BLOCK_H
#define FERRY_AGENT_TUNNEL_BLOCK_H

#include "base/cleanup.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BLOCK_BYTES      ((size_t)128 << 10)
#define BLOCK_HEAD_BYTES ((size_t)4)
/* A frame is only sent when it is shorter than its bytes. */
#define BLOCK_MAX_BYTES BLOCK_BYTES

/* --- Sender -------------------------------------------------------------------------------------
 */

struct packer;

struct packer *packer_new(void);
/* NULL is fine. */
struct packer *packer_free(struct packer *packer);

/* Before each block: how far the link has come (bytes that the kernel has taken, ever) and whether
 * it waits for the link now. */
void packer_watch(struct packer *packer, uint64_t now_usec, uint64_t n_sent, bool is_blocked);

/* Makes a block of 1 to BLOCK_BYTES at data, before which there is room for a head. *ret_block
 * leads to it: into data's own memory, or the packer's until the next call. Returns its length. It
 * is packed when the link has been waited for, is slower than packing by far, and the last bytes
 * became fewer. */
size_t packer_make(struct packer *packer, char *data, size_t length, const char **ret_block);

/* --- Receiver -----------------------------------------------------------------------------------
 */

struct unpacker;

/* Where blocks come from, as stream_read: > 0, 0 at the end, -EAGAIN or why it broke. */
typedef ssize_t (*unpacker_source)(void *arg, void *data, size_t length);

struct unpacker *unpacker_new(unpacker_source source, void *arg);
/* NULL is fine. */
struct unpacker *unpacker_free(struct unpacker *unpacker);

/* Bytes of what was sent, as many as there are and fit: > 0, 0 at the end, -EAGAIN; -EBADMSG: not
 * what a sender makes, or the end in the middle of a block; or what the source says. */
ssize_t unpacker_read(struct unpacker *unpacker, void *data, size_t length);

DEFINE_CLEANUP(struct packer *, packer_free)
#define CLEANUP_PACKER CLEANUP(cleanup_packer_free)
DEFINE_CLEANUP(struct unpacker *, unpacker_free)
#define CLEANUP_UNPACKER CLEANUP(cleanup_unpacker_free)

#endif
