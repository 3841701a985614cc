/* SPDX-License-Identifier: Apache-2.0 */
#include "target/export.h"

#include "base/alloc.h"
#include "base/cancel.h"
#include "base/clock.h"
#include "base/inject.h"
#include "base/io.h"
#include "base/log.h"
#include "target/disk.h"
#include "target/export_check.h"
#include "target/tgt_check.h"
#include "target/tgt_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define ADD_USEC      (10 * USEC_PER_SEC)
#define WITHDRAW_USEC (8 * USEC_PER_SEC) /* with the kill, 10 s */
#define KILL_USEC     (2 * USEC_PER_SEC)
#define DRAIN_USEC    (2 * USEC_PER_SEC)
/* tgtd tells nobody when a session or a write ends, as a rule within the first of these. A guest
 * may be paused meanwhile. */
#define FIRST_RETRY_USEC (200)
#define RETRY_USEC       (5 * USEC_PER_MSEC)
#define MAX_CONNECTIONS  256

/* One order to tgtd on one target; all that follow stop at its first failure. */
struct talk {
	struct tgt *tgt;
	uint32_t tid;
	uint64_t deadline_usec;
};

static int order(const struct talk *talk, enum tgt_mode mode, enum tgt_op op, const char *payload)
{
	return tgt_ask(talk->tgt,
		&(struct tgt_request){
			.mode = mode,
			.op = op,
			.tid = (int32_t)talk->tid,
			.lun = mode == TGT_MODE_DEVICE ? EXPORT_LUN : 0,
			.payload = payload,
		},
		talk->deadline_usec, NULL);
}

/* A result of tgt_ask as a negative errno and a fault. */
static int refuse(int result, const char *iqn, const char *step, struct fault *fault)
{
	if (result > 0)
		return fault_text(fault, result == TGT_ERROR_TARGET_EXISTS ? -EEXIST : -EREMOTEIO,
			"export of %s: %s: tgtd says: %s", iqn, step, tgt_error_text(result));
	if (result == -ECONNREFUSED || result == -ENOENT)
		return fault_text(fault, result, "export of %s: %s: tgtd has ended", iqn, step);
	return fault_errno(fault, result, "export of %s: %s", iqn, step);
}

/* Names are compared without case, values with it. Only later logins see them. */
static const char *const session_params[] = {
	"MaxRecvDataSegmentLength=262144",
	"MaxBurstLength=262144",
	"FirstBurstLength=262144",
	"InitialR2T=No",
	"ImmediateData=Yes",
	"nop_interval=5",
	"nop_count=3",
};

static int set_session_params(
	const struct talk *talk, const struct export_params *params, struct fault *fault)
{
	for (size_t i = 0; i < ARRAY_SIZE(session_params); i++) {
		int r = order(talk, TGT_MODE_TARGET, TGT_OP_UPDATE, session_params[i]);
		if (r != 0)
			return refuse(r, params->iqn, session_params[i], fault);
	}
	return 0;
}

static int add_account(
	const struct talk *talk, const struct export_params *params, struct fault *fault)
{
	/* tgtd takes the rest as the password, so that it may hold commas. */
	char *account CLEANUP_FREE = xasprintf("user=%s,password=%s", params->user, params->secret);
	char *user CLEANUP_FREE = xasprintf("user=%s", params->user);
	int r = order(talk, TGT_MODE_ACCOUNT, TGT_OP_NEW, account);

	explicit_bzero(account, strlen(account));
	if (r != 0)
		return refuse(r, params->iqn, "new account", fault);
	r = order(talk, TGT_MODE_ACCOUNT, TGT_OP_BIND, user);
	if (r == 0)
		return 0;
	order(talk, TGT_MODE_ACCOUNT, TGT_OP_DELETE, user);
	return refuse(r, params->iqn, "bind account", fault);
}

static int add_lun(const struct talk *talk, const struct export_params *params, struct fault *fault)
{
	char *lun CLEANUP_FREE =
		xasprintf("path=%s,bstype=rdwr,blocksize=%d", params->path, DISK_SECTOR);
	char *update CLEANUP_FREE =
		xasprintf("targetOps scsi_sn=%s,scsi_id=%s,vendor_id=FERRY,product_id=FERRY-DISK,"
			  "thin_provisioning=1,",
			params->serial, params->serial);
	int r = order(talk, TGT_MODE_DEVICE, TGT_OP_NEW, lun);

	if (r != 0)
		return refuse(r, params->iqn, "new logical unit", fault);
	r = order(talk, TGT_MODE_DEVICE, TGT_OP_UPDATE, update);
	return r != 0 ? refuse(r, params->iqn, "logical unit's names", fault) : 0;
}

static const char *shown_difference(
	const struct tgt_shown *shown, const struct export_params *params)
{
	if (!shown->path || strcmp(shown->path, params->path) != 0)
		return "another path";
	if (!shown->writable)
		return "a read-only disk: tgtd may not write the file";
	if (!shown->rdwr)
		return "another back end than rdwr";
	if (shown->block_size != DISK_SECTOR)
		return "another block size";
	if (!shown->serial || strcmp(shown->serial, params->serial) != 0)
		return "another serial";
	if (shown->n_luns != 2)
		return "other logical units";
	if (shown->n_accounts != 1)
		return "another number of accounts than one";
	return shown->n_acl != 0 ? "access rules already" : NULL;
}

/* Success of an order says little: tgtd cuts, replaces and degrades what it is told. */
static int read_back(
	const struct talk *talk, const struct export_params *params, struct fault *fault)
{
	struct buf text CLEANUP_BUF = BUF_INIT;
	struct tgt_shown shown CLEANUP(tgt_shown_clear) = {0};
	int r = tgt_ask(talk->tgt,
		&(struct tgt_request){
			.mode = TGT_MODE_TARGET, .op = TGT_OP_SHOW, .tid = TGT_TID_ALL},
		talk->deadline_usec, &text);

	if (r != 0)
		return refuse(r, params->iqn, "read back", fault);
	r = tgt_parse_target(text.data ? text.data : "", talk->tid, params->iqn, &shown);
	if (r < 0)
		return fault_text(fault, -EPROTO,
			"export of %s: tgtd shows it not at all or more than once", params->iqn);
	const char *difference = shown_difference(&shown, params);
	if (difference)
		return fault_text(
			fault, -EREMOTEIO, "export of %s: tgtd made %s", params->iqn, difference);
	return 0;
}

/* tgtd read the size between our two looks at the file. */
static int check_unchanged(const struct export_params *params, const struct export_identity *before,
	struct fault *fault)
{
	struct export_identity now = {0};
	int r = export_check_file(params, &now, fault);

	if (r < 0)
		return r;
	if (now.device != before->device || now.inode != before->inode)
		return fault_text(fault, -ESTALE,
			"export of %s: %s was replaced while it was exported", params->iqn,
			params->path);
	return 0;
}

static int bind_initiator(
	const struct talk *talk, const struct export_params *params, struct fault *fault)
{
	/* A name alone: an address rule beside it would be an alternative, not a condition. */
	char *rule CLEANUP_FREE = xasprintf("initiator-name=%s", params->initiator);
	int r = order(talk, TGT_MODE_TARGET, TGT_OP_BIND, rule);

	return r != 0 ? refuse(r, params->iqn, "bind initiator", fault) : 0;
}

/* The target first: without an account it would be open to everybody. An order that did not answer
 * may have been done, so what cannot be undone surely is undone by SIGKILL. */
static void undo(const struct talk *talk, const char *user)
{
	struct talk late = *talk;
	char *account CLEANUP_FREE = user ? xasprintf("user=%s", user) : NULL;

	late.deadline_usec = clock_deadline(KILL_USEC);
	int r = order(&late, TGT_MODE_TARGET, TGT_OP_DELETE, NULL);
	if (r == 0 && account)
		r = order(&late, TGT_MODE_ACCOUNT, TGT_OP_DELETE, account);
	if (r != 0 && r != TGT_ERROR_NO_TARGET && r != TGT_ERROR_NO_USER)
		tgt_kill(talk->tgt, "a failed export could not be undone, so tgtd was killed",
			late.deadline_usec);
}

/* From the new target to the open door. */
static int make(const struct talk *talk, const struct export_params *params,
	const struct export_identity *identity, struct fault *fault)
{
	bool has_account = false;
	int r = set_session_params(talk, params, fault);

	if (r == 0)
		r = add_account(talk, params, fault);
	has_account = r == 0;
	if (r == 0)
		r = add_lun(talk, params, fault);
	if (r == 0)
		r = read_back(talk, params, fault);
	if (r == 0)
		r = check_unchanged(params, identity, fault);
	if (r == 0)
		r = bind_initiator(talk, params, fault);
	if (r < 0)
		undo(talk, has_account ? params->user : NULL);
	return r;
}

int export_add(struct tgt *tgt, uint32_t tid, const struct export_params *params,
	struct export_identity *ret_identity, struct fault *fault)
{
	struct talk talk = {tgt, tid, clock_deadline(ADD_USEC)};
	struct export_identity identity;
	int r = export_check_params(params, fault);

	if (r == 0)
		r = export_check_file(params, &identity, fault);
	if (r < 0)
		return r;
	if (tid == 0 || tid > INT32_MAX)
		return fault_text(fault, -EINVAL,
			"export of %s: target number %" PRIu32 " must be 1 to 2147483647",
			params->iqn, tid);
	/* A login under way is bound to the number, not to the target that had it. */
	r = tgt_claim_tid(tgt, tid);
	if (r < 0)
		return fault_text(fault, r,
			"export of %s: target number %" PRIu32 " was used before in this tgtd",
			params->iqn, tid);
	char *name CLEANUP_FREE = xasprintf("targetname=%s", params->iqn);
	r = order(&talk, TGT_MODE_TARGET, TGT_OP_NEW, name);
	if (r < 0)
		undo(&talk, NULL);
	if (r != 0)
		return refuse(r, params->iqn, "new target", fault);
	r = make(&talk, params, &identity, fault);
	if (r < 0)
		return r;
	log_info("tgt.export", "pid=%d tid=%" PRIu32 " iqn=%s path=%s serial=%s size=%" PRIu64,
		(int)tgt_pid(tgt), tid, params->iqn, params->path, params->serial,
		params->size_bytes);
	*ret_identity = identity;
	return 0;
}

static int ask_target(
	const struct talk *talk, enum tgt_mode mode, enum tgt_op op, struct buf *ret_text)
{
	/* lun ~0: of all. */
	return tgt_ask(talk->tgt,
		&(struct tgt_request){
			.mode = mode, .op = op, .tid = (int32_t)talk->tid, .lun = UINT64_MAX},
		talk->deadline_usec, ret_text);
}

/* Waits until what tgtd has taken is in the file. Only for tidiness: a write that is still under
 * way when the wait ends is refused, or ends before the target can be deleted. */
static int await_writes(const struct talk *talk)
{
	uint64_t deadline = MIN(talk->deadline_usec, clock_deadline(DRAIN_USEC));
	uint64_t pause = FIRST_RETRY_USEC;

	while (clock_now_usec() < deadline) {
		struct buf text CLEANUP_BUF = BUF_INIT;
		bool done = false;
		int r = ask_target(talk, TGT_MODE_TARGET, TGT_OP_STAT, &text);
		if (r == 0)
			r = tgt_parse_writes_done(text.data ? text.data : "", &done);
		if (r != 0 || done)
			return r;
		cancel_sleep(NULL, pause);
		pause = MIN(2 * pause, RETRY_USEC);
	}
	return 0;
}

/* Closes every connection there is now; the number there was, or what tgt_ask says, negated. */
static int kick(const struct talk *talk)
{
	struct buf text CLEANUP_BUF = BUF_INIT;
	struct tgt_connection found[MAX_CONNECTIONS];
	int r = ask_target(talk, TGT_MODE_CONNECTION, TGT_OP_SHOW, &text);

	if (r != 0)
		return r > 0 ? -EREMOTEIO : r;
	int n = tgt_parse_connections(text.data ? text.data : "", found, MAX_CONNECTIONS);
	for (int i = 0; i < n; i++) {
		/* One that has just gone is as good. */
		r = tgt_ask(talk->tgt,
			&(struct tgt_request){.mode = TGT_MODE_CONNECTION,
				.op = TGT_OP_DELETE,
				.tid = (int32_t)talk->tid,
				.sid = found[i].sid,
				.cid = found[i].cid},
			talk->deadline_usec, NULL);
		if (r < 0)
			return r;
	}
	return n;
}

/* Kicks and deletes until there is nothing to kick and nothing to delete. tgtd refuses to delete a
 * target while a session is there or a command under way, so its success is the proof. */
static int kick_and_delete(const struct talk *talk)
{
	uint64_t pause = FIRST_RETRY_USEC;

	while (clock_now_usec() < talk->deadline_usec) {
		int n = kick(talk);
		if (n < 0)
			return n;
		if (n == 0) {
			int r = order(talk, TGT_MODE_TARGET, TGT_OP_DELETE, NULL);
			if (r <= 0 || r == TGT_ERROR_NO_TARGET)
				return MIN(r, 0);
			if (r != TGT_ERROR_TARGET_ACTIVE && r != TGT_ERROR_LUN_ACTIVE)
				return -EREMOTEIO;
		}
		cancel_sleep(NULL, pause);
		pause = MIN(2 * pause, RETRY_USEC);
	}
	return -ETIMEDOUT;
}

static int withdraw(const struct talk *talk, const char *account)
{
	int r = order(talk, TGT_MODE_DEVICE, TGT_OP_UPDATE, "targetOps readonly=1,");

	if (r == 0)
		r = await_writes(talk);
	if (r == 0)
		r = order(talk, TGT_MODE_TARGET, TGT_OP_UPDATE, "state=offline");
	/* It is gone: withdrawn before. */
	if (r == TGT_ERROR_NO_TARGET)
		r = 0;
	else if (r == 0)
		r = kick_and_delete(talk);
	if (r != 0)
		return r > 0 ? -EREMOTEIO : r;
	r = order(talk, TGT_MODE_ACCOUNT, TGT_OP_DELETE, account);
	return r < 0 ? r : 0;
}

int export_withdraw(struct tgt *tgt, uint32_t tid, const char *user, struct fault *fault)
{
	struct talk talk = {tgt, tid, clock_deadline(WITHDRAW_USEC)};

	if (tgt_is_dead(tgt))
		return 0;
	if (!tgt_is_word(user, 255, ".-"))
		return fault_text(fault, -EINVAL, "withdrawing export %" PRIu32 ": user \"%s\"",
			tid, user ? user : "");
	char *account CLEANUP_FREE = xasprintf("user=%s", user);
	int r = withdraw(&talk, account);
	if (r == 0) {
		log_info("tgt.withdrawn", "pid=%d tid=%" PRIu32, (int)tgt_pid(tgt), tid);
		return 0;
	}
	/* Death is as good a fence as obedience. */
	char *reason CLEANUP_FREE = xasprintf(
		"tgtd did not withdraw export %" PRIu32 " (%s) and was killed", tid, strerror(-r));
	r = tgt_kill(tgt, reason, clock_deadline(KILL_USEC));
	if (r < 0)
		return fault_errno(fault, r,
			"withdrawing export %" PRIu32 ": tgtd (pid %d) neither obeys nor dies; "
			"its disk must not be used before it is gone",
			tid, (int)tgt_pid(tgt));
	return 0;
}

static int check_identity(const char *path, const struct stat *st,
	const struct export_identity *identity, struct fault *fault)
{
	if (!S_ISREG(st->st_mode) || (uint64_t)st->st_dev != identity->device ||
		(uint64_t)st->st_ino != identity->inode)
		return fault_text(fault, -ESTALE,
			"seal: %s is not the file that was exported: it was replaced", path);
	if (st->st_nlink != 1)
		return fault_text(fault, -ESTALE, "seal: %s has %ju names instead of one", path,
			(uintmax_t)st->st_nlink);
	if ((uint64_t)st->st_size != identity->size_bytes)
		return fault_text(fault, -ESTALE,
			"seal: %s has %jd bytes instead of %" PRIu64 ": its size was changed", path,
			(intmax_t)st->st_size, identity->size_bytes);
	return 0;
}

int export_settle(const char *path, const struct export_identity *identity, struct fault *fault)
{
	int fd CLEANUP_CLOSE = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fault_errno(fault, -errno, "seal: %s cannot be opened", path);
	int r = check_identity(path, &st, identity, fault);
	if (r < 0)
		return r;
	/* The kernel tells of a failed write once; a second fsync would lie. */
	if (INJECT("export.fsync") < 0 || fsync(fd) < 0)
		return fault_errno(fault, -EIO,
			"seal: %s could not be flushed: the image is bad and must be copied anew",
			path);
	r = io_sync_parent(path);
	if (r < 0)
		return fault_errno(fault, r, "seal: folder of %s could not be flushed", path);
	return 0;
}
