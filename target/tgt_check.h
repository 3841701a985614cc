/* SPDX-License-Identifier: Apache-2.0 */
/* Reading what tgtd shows. Its output is text made for people, some of it chosen by initiators, so
 * each reader accepts exactly what it expects and refuses the rest. */
#ifndef FERRY_TARGET_TGT_CHECK_H
#define FERRY_TARGET_TGT_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A numeric IPv4 or IPv6 address that is not the wildcard. */
bool tgt_address_is_numeric(const char *address);

/* `portal show` must be exactly one portal on that address: 0 with its port, or -EPROTO. */
int tgt_parse_portal(const char *text, const char *address, uint16_t *ret_port);

struct tgt_shown {
	bool writable;       /* LUN 1: "Readonly: No" */
	bool rdwr;           /* LUN 1: its back end */
	char *path;          /* LUN 1: its backing file; the caller frees it */
	uint64_t block_size; /* LUN 1 */
	size_t n_luns;       /* with LUN 0, which tgtd adds */
	size_t n_accounts;
	size_t n_acl; /* names and addresses that may log in */
	char *serial; /* LUN 1; the caller frees it */
};

/* The section of one target in `target show`. -ENOENT when there is none; -EPROTO when there are
 * two: a logged-in initiator forges lines by its alias, so a section is believed only while it is
 * the only one of its number, and while nobody can be logged in to that target. */
int tgt_parse_target(const char *text, uint32_t tid, const char *iqn, struct tgt_shown *ret_shown);
void tgt_shown_clear(struct tgt_shown *shown);

struct tgt_connection {
	uint64_t sid;
	uint32_t cid;
};

/* `connection show`: at most max of them; the number there is, or -EPROTO. */
int tgt_parse_connections(const char *text, struct tgt_connection *ret_connections, size_t max);

/* `target stat`: whether each session's submitted and done writes are equal; -EPROTO when it
 * cannot be told. */
int tgt_parse_writes_done(const char *text, bool *ret_done);

#endif
