/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/transfer.h"

#include "agent/migrate/attention.h"
#include "agent/migrate/image_source.h"
#include "agent/migrate/live.h"
#include "agent/migrate/pulse.h"
#include "agent/migrate/resume.h"
#include "agent/migrate/verify.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

#define RENEW_TIMEOUT_USEC (60 * USEC_PER_SEC)
/* Sessions lost in a row without a byte leaving the log: then it is no accident. */
#define MAX_FRUITLESS 8
/* Rounds of sending again what the receiver read differently. */
#define MAX_REPAIRS 2
/* Below this the destination counts as full when it refuses a write. */
#define FULL_BYTES (UINT64_C(4) << 20)

/* Never in the clear because the destination says so. */
static int check_way(struct migration *m, const struct value *export, struct fault *fault)
{
	bool has_door = *value_find_string(export, "door", "") &&
			*value_find_string(export, "door_secret", "");

	if (has_door == !m->params->plain_data)
		return 0;
	return fault_text(fault, -EPROTONOSUPPORT,
		"the destination exports the disks %s, and [ferryd] data_tls is \"%s\" here: it "
		"was "
		"changed on one side while the VM moved; the VM is as it was on the source; set "
		"both alike and migrate again",
		has_door ? "through its data port" : "in the clear", peer_data_tls(m->params));
}

/* The exports as they came, each with the key that the destination's data port must have. */
static struct value *keep_exports(struct migration *m, const struct value *exports)
{
	struct value *token CLEANUP_VALUE = migration_get(m, "token");
	struct value *kept = value_copy(exports);

	for (size_t i = 0; i < kept->array.n_items; i++)
		value_set_string(kept->array.items[i], "fingerprint",
			value_find_string(token, "ferry_fingerprint", ""));
	return kept;
}

int transfer_take_exports(struct migration *m, const struct value *result, struct fault *fault)
{
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");
	const struct value *exports = value_find(result, "exports");

	if (!exports || exports->type != VALUE_ARRAY ||
		exports->array.n_items != disks->array.n_items)
		return fault_text(fault, -EBADMSG,
			"the destination answered with exports that are not those of the %zu disks",
			disks->array.n_items);
	for (size_t i = 0; i < disks->array.n_items; i++) {
		int64_t want = value_find_int(disks->array.items[i], "size", 0);
		int64_t have = peer_int(exports->array.items[i], "size", -1);
		if (want != have)
			return fault_text(fault, -EBADMSG,
				"disk %zu has %lld bytes, the destination exports %lld", i,
				(long long)want, (long long)have);
		int r = check_way(m, exports->array.items[i], fault);
		if (r < 0)
			return r;
	}
	value_free(m->exports);
	m->exports = keep_exports(m, exports);
	return 0;
}

int transfer_renew(struct migration *m, struct peer *peer, struct fault *fault)
{
	struct value *result CLEANUP_VALUE = NULL;

	int r = peer_call_patiently(peer, "renew", m->uuid, NULL, RENEW_TIMEOUT_USEC,
		m->params->peer_timeout_usec, m->cancel, &result, fault);
	return r < 0 ? r : transfer_take_exports(m, result, fault);
}

struct endpoint_spec transfer_target(struct migration *m, unsigned disk)
{
	const struct value *export = m->exports->array.items[disk];
	bool has_door = !m->params->plain_data;

	return (struct endpoint_spec){
		.kind = ENDPOINT_ISCSI,
		.writable = true,
		.address = value_find_string(export, "address", ""),
		.port = (uint16_t)peer_int(export, "port", 0),
		.iqn = value_find_string(export, "iqn", ""),
		.initiator = value_find_string(export, "initiator", ""),
		.user = value_find_string(export, "user", ""),
		.secret = value_find_string(export, "secret", ""),
		.serial = value_find_string(export, "serial", ""),
		.door = has_door ? value_find_string(export, "door", "") : NULL,
		.door_secret = has_door ? value_find_string(export, "door_secret", "") : NULL,
		.fingerprint = has_door ? value_find_string(export, "fingerprint", "") : NULL,
		.size_bytes = (uint64_t)peer_int(export, "size", 0),
	};
}

int transfer_open_salvage(struct migration *m, struct fault *fault)
{
	char *on_read_error CLEANUP_FREE = migration_get_string(m, "on_read_error");
	int r = 0;

	if (!on_read_error || strcmp(on_read_error, "zero") != 0)
		return 0;
	for (unsigned i = 0; r == 0 && i < m->n_disks; i++)
		if (!m->disks[i].salvage)
			r = salvage_open(
				m->params->storage->agent, m->uuid, i, &m->disks[i].salvage, fault);
	return r;
}

/* fresh: zeros need not be sent. No longer true once something has to be put right. */
static int copy_once(struct migration *m, unsigned disk, const struct endpoint_spec *source,
	bool fresh, struct fault *fault)
{
	struct copy_params params = {
		.db = m->params->storage->agent,
		.migration = m->uuid,
		.disk = disk,
		.source = *source,
		.target = transfer_target(m, disk),
		.target_fresh = fresh,
		.n_sessions = m->params->copy_sessions,
		.request_bytes = m->params->copy_request_bytes,
		.in_flight_bytes = m->params->copy_in_flight_bytes,
		.rate = m->rate,
		.progress = &m->disks[disk].copy,
		.salvage = m->disks[disk].salvage,
		.cancel = m->cancel,
	};

	return copy_run(&params, fault);
}

bool transfer_is_session_loss(int error)
{
	return error == -ECONNRESET || error == -ETIMEDOUT || error == -ESTALE ||
	       error == -EACCES || error == -ECONNREFUSED;
}

/* The target only said "medium error": the receiver knows whether it is out of space. */
int transfer_explain(struct migration *m, struct peer *peer, int error, struct fault *fault)
{
	struct value *result CLEANUP_VALUE = NULL;
	struct fault ignored CLEANUP_FAULT = FAULT_INIT;

	if (peer_call(peer, "status", m->uuid, NULL, RENEW_TIMEOUT_USEC, m->cancel, &result,
		    &ignored) < 0)
		return error;
	const struct value *space = value_find(result, "free");
	for (size_t i = 0; space && space->type == VALUE_ARRAY && i < space->array.n_items; i++) {
		int64_t available = peer_int(space->array.items[i], "bytes", INT64_MAX);
		if (available >= (int64_t)FULL_BYTES)
			continue;
		char *text CLEANUP_FREE = xasprintf(
			"copy: disk %zu: the destination SR is full (%lld bytes free); the VM is "
			"as it was on the source; free space at the destination and migrate again",
			i, (long long)available);
		return fault_set(fault, -ENOSPC, "SR_BACKEND_FAILURE_44", "", text, "", NULL);
	}
	return error;
}

/* Copies one disk until its log is empty. */
static int copy_disk(struct migration *m, struct peer *peer, unsigned disk,
	const struct endpoint_spec *source, bool fresh, struct fault *fault)
{
	uint64_t last_left = UINT64_MAX;
	unsigned fruitless = 0;
	int r;

	for (;;) {
		uint64_t left;
		uint64_t rows;
		r = m->exports ? 0 : transfer_renew(m, peer, fault);
		if (r == 0 && m->disks[disk].unsure)
			r = resume_compare(m, peer, disk, source, fault);
		if (r == 0)
			r = copy_once(m, disk, source, fresh, fault);
		if (!m->exports || !transfer_is_session_loss(r))
			break;
		char *text CLEANUP_FREE = fault_describe(fault);
		log_warn("MIG-SESSION-LOST", "migration=%s disk=%u error=%s", m->uuid, disk, text);
		m->exports = value_free(m->exports);
		m->disks[disk].unsure = true;
		int total = extent_log_total(
			m->params->storage->agent, m->uuid, disk, &left, &rows, fault);
		if (total < 0)
			return total;
		fruitless = left < last_left ? 0 : fruitless + 1;
		last_left = left;
		if (fruitless > MAX_FRUITLESS)
			break;
		r = attention_pause(m, m->cancel, fruitless * 500 * USEC_PER_MSEC);
		if (r < 0)
			break;
	}
	return r == -EREMOTEIO ? transfer_explain(m, peer, r, fault) : r;
}

/* Copies the disk with the comparison running behind; *ret_n_equal: spans already found equal. */
static int copy_with_verifier(struct migration *m, struct peer *peer, unsigned disk,
	const struct endpoint_spec *source, uint64_t *ret_n_equal, struct fault *fault)
{
	struct verifier *verifier = NULL;

	int r = verifier_start(m, disk, source->size_bytes, &verifier, fault);
	if (r < 0)
		return r;
	m->disks[disk].started_usec = clock_now_usec();
	r = copy_disk(m, peer, disk, source, !resume_is_distrusted(m), fault);
	m->disks[disk].ended_usec = clock_now_usec();
	*ret_n_equal = verifier_stop(verifier);
	return r;
}

static int copy_and_verify(struct migration *m, struct peer *peer, unsigned disk,
	const struct endpoint_spec *source, struct fault *fault)
{
	uint64_t n_equal = 0;

	int r = copy_with_verifier(m, peer, disk, source, &n_equal, fault);
	for (unsigned repairs = 0;; repairs++) {
		uint64_t differ = 0;
		if (r == 0)
			r = verify_disk(m, peer, disk, source->size_bytes, n_equal, &differ, fault);
		if (r < 0 || differ == 0)
			return r;
		if (repairs == MAX_REPAIRS)
			return fault_text(fault, -EIO,
				"verify: %llu chunks of disk %u still read differently at the "
				"destination after being sent %u times: check the memory and the "
				"disks "
				"of the destination host",
				(unsigned long long)differ, disk, repairs + 1);
		r = copy_disk(m, peer, disk, source, false, fault);
	}
}

static int move_disk(struct migration *m, struct peer *peer, unsigned disk,
	const struct value *plan, struct fault *fault)
{
	struct image_source *source CLEANUP_IMAGE_SOURCE = NULL;

	struct guest *guest = m->live && disk < m->n_own_disks ? m->live->guest : NULL;
	int r = image_source_open(m, plan, guest, &source, fault);
	return r < 0 ? r : copy_and_verify(m, peer, disk, image_source_spec(source), fault);
}

/* Whether the disk of the plan is copied before that other one. */
static bool comes_before(
	const struct migration *m, const struct value *disks, size_t disk, size_t other)
{
	bool is_still = disk >= m->n_own_disks;

	if (m->live && is_still != (other >= m->n_own_disks))
		return is_still;
	return value_find_int(disks->array.items[disk], "size", 0) <
	       value_find_int(disks->array.items[other], "size", 0);
}

/* Small disks first: each that is done is one that a failure cannot cost again. What a guest writes
 * to comes last: the less of it is written anew. */
static void set_order(const struct migration *m, const struct value *disks, unsigned *order)
{
	for (size_t i = 0; i < m->n_disks; i++) {
		size_t at = i;
		for (; at > 0 && comes_before(m, disks, i, order[at - 1]); at--)
			order[at] = order[at - 1];
		order[at] = (unsigned)i;
	}
}

static uint64_t figure_before(const struct value *figures, size_t disk)
{
	if (!figures || figures->type != VALUE_ARRAY || disk >= figures->array.n_items)
		return 0;
	return (uint64_t)figures->array.items[disk]->integer;
}

/* What earlier runs of the daemon did, for figures that do not go back. */
static int count_done_before(struct migration *m, const struct value *disks, struct fault *fault)
{
	struct value *sent CLEANUP_VALUE = migration_get(m, "sent");
	struct value *compared CLEANUP_VALUE = migration_get(m, "compared");
	struct value *same CLEANUP_VALUE = migration_get(m, "same");

	for (size_t i = 0; i < disks->array.n_items; i++) {
		uint64_t size = (uint64_t)value_find_int(disks->array.items[i], "size", 0);
		uint64_t allocated =
			(uint64_t)value_find_int(disks->array.items[i], "allocated", 0);
		uint64_t left;
		uint64_t rows;
		int r = extent_log_total(
			m->params->storage->agent, m->uuid, (unsigned)i, &left, &rows, fault);
		if (r < 0)
			return r;
		m->disks[i].done_before =
			(uint64_t)((double)allocated * (1.0 - (double)left / (double)size));
		m->disks[i].sent_before = figure_before(sent, i);
		m->disks[i].compared_before = figure_before(compared, i);
		m->disks[i].same_before = figure_before(same, i);
	}
	return 0;
}

/* Those from `first` on. */
static int run(struct migration *m, struct peer *peer, size_t first, struct fault *fault)
{
	struct value *disks CLEANUP_VALUE = migration_get(m, "disks");
	unsigned *order CLEANUP_FREE = xcalloc(m->n_disks, sizeof(*order));
	struct pulse *pulse CLEANUP_PULSE = NULL;
	int r;

	set_order(m, disks, order);
	r = count_done_before(m, disks, fault);
	if (r == 0)
		r = pulse_start(m, &pulse, fault);
	for (size_t i = 0; r == 0 && i < m->n_disks; i++)
		if (order[i] >= first)
			r = move_disk(m, peer, order[i], disks->array.items[order[i]], fault);
	return r;
}

int transfer_run(struct migration *m, struct peer *peer, struct fault *fault)
{
	return run(m, peer, 0, fault);
}

int transfer_run_still(struct migration *m, struct peer *peer, struct fault *fault)
{
	return run(m, peer, m->n_own_disks, fault);
}
