/* SPDX-License-Identifier: Apache-2.0 */
/* The host that joins. */
#include "agent/pool/join.h"

#include "agent/pool/bundle.h"
#include "agent/pool/link.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "xmlrpc/client.h"
#include "xmlrpc/probe.h"

#include <errno.h>
#include <string.h>

#define CALL_USEC (30 * USEC_PER_SEC)
/* All objects of this host travel in one call, and are written in one transaction. */
#define ADOPT_USEC (120 * USEC_PER_SEC)
/* How long the outcome is asked for before the daemon starts anew to ask on. */
#define RESOLVE_USEC (20 * USEC_PER_SEC)
#define RETRY_USEC   (500 * USEC_PER_MSEC)

/* --- Whether it may ----------------------------------------------------------------------------
 */

static int check_alone(struct pool_db *pool, const char *host, struct fault *fault)
{
	struct value *hosts CLEANUP_VALUE = NULL;
	int r = object_get_all(pool, "host", &hosts, fault);

	if (r < 0 || hosts->array.n_items <= 1)
		return r;
	return fault_set(fault, -EBUSY, "JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS", host, NULL);
}

static int check_vms(struct pool_db *pool, const char *host, struct fault *fault)
{
	struct value *vms CLEANUP_VALUE = NULL;
	int r = object_get_all_records(pool, "VM", &vms, fault);

	for (size_t i = 0; r == 0 && i < vms->record.n_members; i++) {
		const struct value_member *vm = &vms->record.members[i];
		const struct value *operations = value_find(vm->value, "current_operations");
		if (value_find_bool(vm->value, "is_control_domain", false))
			continue;
		if (strcmp(value_find_string(vm->value, "power_state", ""), "Halted") != 0)
			return fault_set(fault, -EBUSY, "JOINING_HOST_CANNOT_HAVE_RUNNING_VMS",
				host, vm->name, NULL);
		if (operations->record.n_members > 0)
			return fault_set(
				fault, -EBUSY, "OTHER_OPERATION_IN_PROGRESS", "VM", vm->name, NULL);
	}
	return r;
}

static int check_migrations(struct pool_db *pool, struct fault *fault)
{
	struct value *migrations CLEANUP_VALUE = NULL;
	int r = object_get_all_records(pool, "migration", &migrations, fault);

	for (size_t i = 0; r == 0 && i < migrations->record.n_members; i++) {
		const struct value_member *migration = &migrations->record.members[i];
		const struct value *finished = value_find(migration->value, "finished");
		if (finished && finished->integer == 0)
			return fault_set(fault, -EBUSY, "OTHER_OPERATION_IN_PROGRESS", "migration",
				migration->name, NULL);
	}
	return r;
}

/* Its disks are other hosts' too, which stay where they are. */
static int check_srs(struct pool_db *pool, struct fault *fault)
{
	struct value *srs CLEANUP_VALUE = NULL;
	int r = object_get_all_records(pool, "SR", &srs, fault);

	for (size_t i = 0; r == 0 && i < srs->record.n_members; i++)
		if (value_find_bool(srs->record.members[i].value, "shared", false))
			return fault_set(
				fault, -EBUSY, "JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS", NULL);
	return r;
}

int join_check(struct pool_db *pool, const char *host, struct fault *fault)
{
	int r = check_alone(pool, host, fault);

	if (r == 0)
		r = check_vms(pool, host, fault);
	if (r == 0)
		r = check_srs(pool, fault);
	return r < 0 ? r : check_migrations(pool, fault);
}

/* --- Asking ------------------------------------------------------------------------------------
 */

struct joining {
	const struct join_params *params;
	struct cancel *cancel;
	struct membership membership;
	struct client *client;
	char *session;
};

static void joining_clear(struct joining *joining)
{
	membership_clear(&joining->membership);
	client_free(joining->client);
	free(joining->session);
}

static int ask(struct joining *joining, const char *method, struct value *params,
	uint64_t timeout_usec, struct value **ret_result, struct fault *fault)
{
	struct value *owned CLEANUP_VALUE = params;

	return client_call(joining->client, method, owned, clock_deadline(timeout_usec),
		joining->cancel, ret_result, fault);
}

static int connect_to(struct joining *joining, struct fault *fault)
{
	const struct join_params *params = joining->params;
	struct membership *membership = &joining->membership;
	struct probe probe CLEANUP(probe_clear) = PROBE_INIT;
	int r = 0;

	membership->url = strstr(params->address, "://") ? xstrdup(params->address)
							 : xasprintf("https://%s", params->address);
	if (!*params->pin) {
		r = probe_server(
			membership->url, clock_deadline(CALL_USEC), joining->cancel, &probe, fault);
		if (r < 0)
			return r;
		log_warn("POOL_TRUSTED", "url=%s fingerprint=%s: nobody told which it must be",
			membership->url, probe.key);
	}
	membership->fingerprint = xstrdup(*params->pin ? params->pin : probe.key);
	if (strcmp(membership->fingerprint, params->fingerprint) == 0)
		return fault_set(fault, -EINVAL, "OPERATION_NOT_ALLOWED",
			"pool.join: that address is this host's own", NULL);
	joining->client = client_new(&(struct client_params){
		.url = membership->url, .fingerprint = membership->fingerprint});
	return 0;
}

static int log_in(struct joining *joining, struct fault *fault)
{
	struct value *result CLEANUP_VALUE = NULL;
	struct value *params = value_new_array();

	value_append_string(params, joining->params->username);
	value_append_string(params, joining->params->password);
	int r = ask(joining, "session.login_with_password", params, CALL_USEC, &result, fault);
	if (r == 0)
		joining->session = xstrdup(value_string(result, ""));
	return r;
}

static void log_out(struct joining *joining)
{
	struct value *result CLEANUP_VALUE = NULL;

	if (joining->session)
		ask(joining, "session.logout",
			value_append_string(value_new_array(), joining->session), CALL_USEC,
			&result, NULL);
}

static int be_invited(struct joining *joining, struct fault *fault)
{
	struct value *result CLEANUP_VALUE = NULL;
	struct value *params = value_new_array();

	value_append_string(params, joining->session);
	value_append_string(params, joining->params->host);
	value_append_string(params, FERRY_VERSION);
	int r = ask(joining, "Pool.invite", params, CALL_USEC, &result, fault);
	if (r < 0)
		return r;
	joining->membership.host = xstrdup(joining->params->host);
	joining->membership.secret = xstrdup(value_string(result, ""));
	joining->membership.kind = MEMBERSHIP_JOINING;
	joining->membership.coordinator = xstrdup("");
	return membership_store(joining->params->state_dir, &joining->membership, fault);
}

static int compose(const struct joining *joining, char **ret_text, struct fault *fault)
{
	const struct join_params *params = joining->params;
	struct value *request CLEANUP_VALUE = value_new_struct();
	struct buf text CLEANUP_BUF = BUF_INIT;
	struct value *bundle = NULL;
	int r = bundle_export_pool(params->pool, &bundle, fault);

	if (r < 0)
		return r;
	value_set_string(request, "host", params->host);
	value_set_string(request, "url", params->url);
	value_set_string(request, "fingerprint", params->fingerprint);
	value_set_string(request, "secret", joining->membership.secret);
	value_set(request, "objects", bundle);
	json_encode(request, &text);
	*ret_text = buf_take_string(&text);
	return 0;
}

/* --- What became of it -------------------------------------------------------------------------
 */

/* 0: *ret_joined is the truth from now on. */
static int resolve(const struct membership *membership, bool *ret_joined, struct fault *fault)
{
	struct link *link CLEANUP_LINK = link_new(membership->url, membership->fingerprint,
		membership->host, membership->secret, NULL);
	struct value *result CLEANUP_VALUE = NULL;
	struct value *args = value_append_string(value_new_array(), membership->host);
	int r = link_call(link, "resolve", value_append_string(args, membership->secret), CALL_USEC,
		NULL, &result, fault);

	if (r == 0)
		*ret_joined = result->type == VALUE_BOOL && result->boolean;
	return r;
}

int join_settle(const char *state_dir, const struct membership *membership, struct fault *fault)
{
	bool joined = false;
	int r = resolve(membership, &joined, fault);

	if (r < 0)
		return r;
	log_info("POOL_JOIN_SETTLED", "coordinator=%s joined=%s", membership->url,
		joined ? "yes" : "no");
	return joined ? membership_confirm(state_dir, fault) : membership_remove(state_dir, fault);
}

/* -EINPROGRESS while nobody answers. */
static int find_out(struct joining *joining, struct fault *fault)
{
	uint64_t deadline = clock_deadline(RESOLVE_USEC);
	bool joined = false;

	while (resolve(&joining->membership, &joined, NULL) < 0) {
		if (clock_now_usec() > deadline)
			return -EINPROGRESS;
		cancel_sleep(NULL, RETRY_USEC);
	}
	if (joined) {
		fault_clear(fault);
		return 0;
	}
	return -ECONNRESET;
}

static int be_adopted(struct joining *joining, struct fault *fault)
{
	const char *state_dir = joining->params->state_dir;
	struct value *result CLEANUP_VALUE = NULL;
	char *text CLEANUP_FREE = NULL;
	int r = compose(joining, &text, fault);

	if (r == 0) {
		struct value *params = value_append_string(value_new_array(), joining->session);
		r = ask(joining, "Pool.adopt", value_append_string(params, text), ADOPT_USEC,
			&result, fault);
	}
	/* No answer, or one that may stand for none: the coordinator itself did not say no. */
	if (r < 0 && r != -EREMOTEIO && !link_was_not_sent(r))
		r = find_out(joining, fault);
	if (r == 0)
		return membership_confirm(state_dir, fault);
	if (r != -EINPROGRESS)
		membership_remove(state_dir, NULL);
	return r;
}

int join_run(const struct join_params *params, struct cancel *cancel, struct fault *fault)
{
	struct joining joining CLEANUP(joining_clear) = {.params = params, .cancel = cancel};
	int r = join_check(params->pool, params->host, fault);

	if (r == 0)
		r = connect_to(&joining, fault);
	if (r == 0)
		r = log_in(&joining, fault);
	if (r == 0)
		r = be_invited(&joining, fault);
	if (r == 0)
		r = be_adopted(&joining, fault);
	log_out(&joining);
	return r;
}
