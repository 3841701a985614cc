/* SPDX-License-Identifier: Apache-2.0 */
/* Joining and leaving, as two databases and some files see it; tests/e2e/pool_hosts.py has the
 * network. */
#include "tests/lib/pool_fixture.h"

#include "agent/pool/bundle.h"
#include "agent/pool/join.h"
#include "agent/pool/leave.h"
#include "agent/pool/link.h"
#include "agent/pool/membership.h"
#include "base/io.h"
#include "base/json.h"
#include "base/uuid.h"

#include <sys/stat.h>
#include <unistd.h>

/* A pool of one host, with an SR, a disk, and a halted VM that has it. */
struct site {
	struct folder folder;
	struct pool_db *pool;
	char *host;
	char *metrics;
	char *network; /* of its management interface */
	char *guests;  /* another one */
	char *sr;
	char *vdi;
	char *vm;
};

struct bench {
	struct site there; /* the coordinator */
	struct site here;  /* who joins */
	struct fault fault;
};

static char *make(struct bench *b, struct pool_db *pool, const char *class, ...)
{
	struct value *fields CLEANUP_VALUE = value_new_struct();
	const char *name;
	char *ref = NULL;
	va_list args;

	va_start(args, class);
	while ((name = va_arg(args, const char *)))
		value_set_string(fields, name, va_arg(args, const char *));
	va_end(args);
	check_ok(&b->fault, object_create(pool, class, fields, &ref, &b->fault));
	return ref;
}

static void set_true(struct bench *b, struct pool_db *pool, const char *class, const char *ref,
	const char *field)
{
	struct value *yes CLEANUP_VALUE = value_new_bool(true);

	check_ok(&b->fault, object_set_field(pool, class, ref, field, yes, &b->fault));
}

static void site_open(struct bench *b, struct site *site, const char *name)
{
	folder_make(&site->folder);
	check_ok(&b->fault, pool_db_open(site->folder.database, &site->pool, &b->fault));
	struct pool_db *pool = site->pool;
	site->metrics = make(b, pool, "host_metrics", NULL);
	site->host = make(b, pool, "host", "name_label", name, "metrics", site->metrics, NULL);
	free(make(b, pool, "pool", "name_label", name, "master", site->host, NULL));
	free(make(b, pool, "SM", "type", "file", NULL));
	site->network = make(b, pool, "network", "name_label", name, NULL);
	site->guests = make(b, pool, "network", "name_label", "guests", "bridge", "br0", NULL);
	char *pif CLEANUP_FREE =
		make(b, pool, "PIF", "host", site->host, "network", site->network, NULL);
	set_true(b, pool, "PIF", pif, "management");
	char *domain CLEANUP_FREE = make(b, pool, "VM", "name_label", "domain 0", "resident_on",
		site->host, "power_state", "Running", NULL);
	set_true(b, pool, "VM", domain, "is_control_domain");
	site->sr = make(b, pool, "SR", "name_label", name, "type", "file", NULL);
	free(make(b, pool, "PBD", "host", site->host, "SR", site->sr, NULL));
	site->vdi = make(b, pool, "VDI", "SR", site->sr, "location", "x.raw", NULL);
	site->vm = make(b, pool, "VM", "name_label", "guest", "affinity", site->host, NULL);
	free(make(b, pool, "VBD", "VM", site->vm, "VDI", site->vdi, "userdevice", "0", NULL));
	free(make(b, pool, "VIF", "VM", site->vm, "network", site->guests, "device", "0", NULL));
	check_ok(&b->fault, pool_db_set_user(pool, "root", "hash", &b->fault));
}

static void site_close(struct site *site)
{
	pool_db_close(site->pool);
	folder_remove(&site->folder);
	free(site->host);
	free(site->metrics);
	free(site->network);
	free(site->guests);
	free(site->sr);
	free(site->vdi);
	free(site->vm);
}

static int setup(void **state)
{
	struct bench *b = xcalloc(1, sizeof(*b));

	*state = b;
	site_open(b, &b->there, "there");
	site_open(b, &b->here, "here");
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	site_close(&b->here);
	site_close(&b->there);
	fault_clear(&b->fault);
	free(b);
	return 0;
}

/* What the host that joins sends. */
static char *request_of(struct bench *b, const char *secret)
{
	struct value *request CLEANUP_VALUE = value_new_struct();
	struct value *objects = NULL;
	struct buf text CLEANUP_BUF = BUF_INIT;

	check_ok(&b->fault, bundle_export_pool(b->here.pool, &objects, &b->fault));
	value_set_string(request, "host", b->here.host);
	value_set_string(request, "url", "https://127.0.0.1:1");
	value_set_string(request, "fingerprint", "f");
	value_set_string(request, "secret", secret);
	value_set(request, "objects", objects);
	json_encode(request, &text);
	return buf_take_string(&text);
}

static int adopt(struct bench *b, const char *secret)
{
	char *request CLEANUP_FREE = request_of(b, secret);
	struct host_link link CLEANUP_HOST_LINK = {0};

	return join_adopt(b->there.pool, b->there.host, request, &link, &b->fault);
}

static char *invite(struct bench *b)
{
	char *secret = NULL;

	check_ok(&b->fault, join_invite(b->there.pool, b->here.host, &secret, &b->fault));
	return secret;
}

static size_t count(struct bench *b, struct pool_db *pool, const char *class)
{
	struct value *refs CLEANUP_VALUE = NULL;

	check_ok(&b->fault, object_get_all(pool, class, &refs, &b->fault));
	return refs->array.n_items;
}

static void assert_ref(struct bench *b, struct pool_db *pool, const char *class, const char *ref,
	const char *field, const char *expected)
{
	char *text CLEANUP_FREE = NULL;

	check_ok(&b->fault, object_get_string(pool, class, ref, field, &text, &b->fault));
	assert_string_equal(text, expected);
}

/* --- Joining -----------------------------------------------------------------------------------
 */

static void all_that_a_host_has_comes_along(void **state)
{
	struct bench *b = *state;
	struct pool_db *pool = b->there.pool;
	char *secret CLEANUP_FREE = invite(b);
	struct value *record CLEANUP_VALUE = NULL;
	struct value *pbds CLEANUP_VALUE = NULL;

	check_ok(&b->fault, adopt(b, secret));
	assert_int_equal(count(b, pool, "host"), 2);
	assert_int_equal(count(b, pool, "pool"), 1);
	assert_int_equal(count(b, pool, "VM"), 4);
	assert_ref(b, pool, "host", b->here.host, "metrics", b->here.metrics);
	assert_ref(b, pool, "VDI", b->here.vdi, "SR", b->here.sr);
	assert_ref(b, pool, "VM", b->here.vm, "affinity", b->here.host);
	check_ok(&b->fault, object_get_record(pool, "VM", b->here.vm, &record, &b->fault));
	assert_int_equal(value_find(record, "VBDs")->array.n_items, 1);
	check_ok(&b->fault, object_find(pool, "PBD", "host", b->here.host, &pbds, &b->fault));
	assert_int_equal(pbds->array.n_items, 1);
}

static void networks_that_are_the_same_become_one(void **state)
{
	struct bench *b = *state;
	struct pool_db *pool = b->there.pool;
	char *secret CLEANUP_FREE = invite(b);
	struct value *record CLEANUP_VALUE = NULL;

	check_ok(&b->fault, adopt(b, secret));
	assert_int_equal(count(b, pool, "network"), 2);
	check_ok(&b->fault,
		object_get_record(pool, "network", b->there.network, &record, &b->fault));
	assert_int_equal(value_find(record, "PIFs")->array.n_items, 2);
	record = value_free(record);
	check_ok(
		&b->fault, object_get_record(pool, "network", b->there.guests, &record, &b->fault));
	assert_int_equal(value_find(record, "VIFs")->array.n_items, 2);
}

static void the_same_uuid_in_both_pools_is_refused_and_nothing_is_left(void **state)
{
	struct bench *b = *state;
	char *uuid CLEANUP_FREE = NULL;
	char *secret CLEANUP_FREE = invite(b);
	bool joined = true;

	check_ok(&b->fault,
		object_get_string(b->here.pool, "VDI", b->here.vdi, "uuid", &uuid, &b->fault));
	free(make(b, b->there.pool, "VDI", "SR", b->there.sr, "uuid", uuid, NULL));
	assert_true(adopt(b, secret) < 0);
	assert_string_equal(b->fault.code, "DB_UNIQUENESS_CONSTRAINT_VIOLATION");
	assert_string_equal(b->fault.params[0], "VDI");
	assert_string_equal(b->fault.params[2], uuid);
	fault_clear(&b->fault);
	assert_int_equal(count(b, b->there.pool, "host"), 1);
	assert_int_equal(count(b, b->there.pool, "SR"), 1);
	check_ok(&b->fault, join_resolve(b->there.pool, b->here.host, secret, &joined, &b->fault));
	assert_false(joined);
}

static void an_adoption_whose_answer_was_lost_is_done_once(void **state)
{
	struct bench *b = *state;
	char *secret CLEANUP_FREE = invite(b);
	bool joined = false;

	check_ok(&b->fault, adopt(b, secret));
	check_ok(&b->fault, adopt(b, secret));
	assert_int_equal(count(b, b->there.pool, "host"), 2);
	check_ok(&b->fault, join_resolve(b->there.pool, b->here.host, secret, &joined, &b->fault));
	assert_true(joined);
}

/* The host has been told that it did not join: a request that comes late must not make it so. */
static void an_invitation_ends_with_the_answer_that_it_was_not_used(void **state)
{
	struct bench *b = *state;
	char *secret CLEANUP_FREE = invite(b);
	bool joined = true;

	check_ok(&b->fault, join_resolve(b->there.pool, b->here.host, secret, &joined, &b->fault));
	assert_false(joined);
	check_fault(&b->fault, "OPERATION_NOT_ALLOWED", adopt(b, secret));
	check_fault(&b->fault, "OPERATION_NOT_ALLOWED", adopt(b, "made up"));
	assert_int_equal(count(b, b->there.pool, "host"), 1);
}

static void a_host_that_is_busy_does_not_join(void **state)
{
	struct bench *b = *state;
	struct pool_db *pool = b->here.pool;
	struct value *running CLEANUP_VALUE = value_new_string("Running");
	struct value *halted CLEANUP_VALUE = value_new_string("Halted");

	check_ok(&b->fault, join_check(pool, b->here.host, &b->fault));
	check_ok(&b->fault,
		object_set_field(pool, "VM", b->here.vm, "power_state", running, &b->fault));
	check_fault(&b->fault, "JOINING_HOST_CANNOT_HAVE_RUNNING_VMS",
		join_check(pool, b->here.host, &b->fault));
	check_ok(&b->fault,
		object_set_field(pool, "VM", b->here.vm, "power_state", halted, &b->fault));
	check_ok(&b->fault, object_map_set(pool, "VM", b->here.vm, "current_operations", "task",
				    "clone", &b->fault));
	check_fault(&b->fault, "OTHER_OPERATION_IN_PROGRESS",
		join_check(pool, b->here.host, &b->fault));
	check_ok(&b->fault,
		object_map_remove(pool, "VM", b->here.vm, "current_operations", "task", &b->fault));
	free(make(b, pool, "migration", "name_label", "m", NULL));
	check_fault(&b->fault, "OTHER_OPERATION_IN_PROGRESS",
		join_check(pool, b->here.host, &b->fault));
	free(make(b, pool, "host", "name_label", "third", NULL));
	check_fault(&b->fault, "JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS",
		join_check(pool, b->here.host, &b->fault));
}

static void what_is_no_host_is_not_adopted(void **state)
{
	static const char *const requests[] = {"", "[]", "{}", "{\"objects\":{}}",
		"{\"objects\":[],\"host\":\"h\",\"url\":\"u\",\"fingerprint\":\"f\",\"secret\":"
		"\"s\"}",
		"{\"objects\":{\"host\":{\"h\":7}},\"host\":\"h\",\"url\":\"u\",\"fingerprint\":"
		"\"f\","
		"\"secret\":\"s\"}",
		"{\"objects\":{\"host\":{\"h\":{}},\"x\":{}},\"host\":\"h\",\"url\":\"u\","
		"\"fingerprint\":\"f\",\"secret\":\"s\"}"};
	struct bench *b = *state;

	check_ok(&b->fault, host_departure_record(b->there.pool, "h", "s", NULL, &b->fault));
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		struct host_link link = {0};
		check_fault(&b->fault, "INTERNAL_ERROR",
			join_adopt(b->there.pool, b->there.host, requests[i], &link, &b->fault));
	}
	assert_int_equal(count(b, b->there.pool, "host"), 1);
}

/* --- Leaving -----------------------------------------------------------------------------------
 */

static void become_member(struct bench *b)
{
	char *secret CLEANUP_FREE = invite(b);

	check_ok(&b->fault, adopt(b, secret));
}

static int eject(struct bench *b)
{
	return leave_eject(b->there.pool, b->there.host, b->here.host, &b->fault);
}

/* What the host finds when it asks; the caller frees it. */
static char *find_bundle(struct bench *b, const char *secret)
{
	char *bundle = NULL;

	assert_int_equal(
		host_departure_find(b->there.pool, b->here.host, secret, &bundle, &b->fault), 1);
	assert_non_null(bundle);
	return bundle;
}

static void an_ejected_host_takes_its_own_along(void **state)
{
	struct bench *b = *state;
	char *secret CLEANUP_FREE = invite(b);
	struct pool_db *fresh CLEANUP_POOL_DB = NULL;
	char *hash CLEANUP_FREE = NULL;
	struct value *pools CLEANUP_VALUE = NULL;

	check_ok(&b->fault, adopt(b, secret));
	check_ok(&b->fault, eject(b));
	assert_int_equal(count(b, b->there.pool, "host"), 1);
	assert_int_equal(count(b, b->there.pool, "VM"), 2);
	assert_int_equal(count(b, b->there.pool, "SR"), 1);
	assert_int_equal(count(b, b->there.pool, "PIF"), 1);

	char *bundle CLEANUP_FREE = find_bundle(b, secret);
	char *path CLEANUP_FREE = xasprintf("%s/pool.db", b->here.folder.path);
	/* Twice, as after a crash in between. */
	check_ok(&b->fault, leave_make_pool(b->here.folder.path, bundle, "own again", &b->fault));
	check_ok(&b->fault, leave_make_pool(b->here.folder.path, bundle, "own again", &b->fault));
	check_ok(&b->fault, pool_db_open(path, &fresh, &b->fault));
	assert_int_equal(count(b, fresh, "host"), 1);
	assert_int_equal(count(b, fresh, "VM"), 2);
	assert_int_equal(count(b, fresh, "VBD"), 1);
	assert_int_equal(count(b, fresh, "VIF"), 1);
	assert_int_equal(count(b, fresh, "SM"), 1);
	assert_ref(b, fresh, "VDI", b->here.vdi, "SR", b->here.sr);
	assert_ref(b, fresh, "VM", b->here.vm, "affinity", b->here.host);
	check_ok(&b->fault, object_get_all_records(fresh, "pool", &pools, &b->fault));
	const struct value *pool = pools->record.members[0].value;
	assert_string_equal(value_find_string(pool, "master", ""), b->here.host);
	assert_string_equal(value_find_string(pool, "default_SR", ""), b->here.sr);
	check_ok(&b->fault, pool_db_get_user(fresh, "root", &hash, &b->fault));
	assert_string_equal(hash, "hash");
	fresh = pool_db_close(fresh);
	unlink(path);
}

static void a_host_in_use_is_not_ejected(void **state)
{
	struct bench *b = *state;
	struct pool_db *pool = b->there.pool;
	struct value *here CLEANUP_VALUE = NULL;
	struct value *nowhere CLEANUP_VALUE = value_new_string(REF_NULL);

	become_member(b);
	here = value_new_string(b->here.host);
	check_ok(&b->fault,
		object_set_field(pool, "VM", b->there.vm, "resident_on", here, &b->fault));
	check_fault(&b->fault, "HOST_HAS_RESIDENT_VMS", eject(b));
	check_ok(&b->fault,
		object_set_field(pool, "VM", b->there.vm, "resident_on", nowhere, &b->fault));
	check_ok(&b->fault, object_map_set(pool, "VDI", b->here.vdi, "current_operations", "m",
				    "mirror", &b->fault));
	check_fault(&b->fault, "VDI_IN_USE", eject(b));
	check_ok(&b->fault,
		object_map_remove(pool, "VDI", b->here.vdi, "current_operations", "m", &b->fault));
	free(make(b, pool, "VBD", "VM", b->here.vm, "VDI", b->there.vdi, "userdevice", "1", NULL));
	check_fault(&b->fault, "INTERNAL_ERROR", eject(b));
	check_fault(&b->fault, "OPERATION_NOT_ALLOWED",
		leave_eject(pool, b->there.host, b->there.host, &b->fault));
	check_fault(&b->fault, "HANDLE_INVALID",
		leave_eject(pool, b->there.host, "OpaqueRef:x", &b->fault));
	assert_int_equal(count(b, pool, "host"), 2);
	assert_int_equal(count(b, pool, "VDI"), 2);
}

/* --- The file ----------------------------------------------------------------------------------
 */

static void a_joining_host_is_a_member_when_that_is_confirmed(void **state)
{
	struct bench *b = *state;
	const char *folder = b->here.folder.path;
	struct membership membership CLEANUP_MEMBERSHIP = {.host = xstrdup("h"),
		.url = xstrdup("u"),
		.fingerprint = xstrdup("f"),
		.secret = xstrdup("s"),
		.coordinator = xstrdup("OpaqueRef:c"),
		.term = INT64_C(1) << 40,
		.kind = MEMBERSHIP_JOINING};
	struct membership found CLEANUP_MEMBERSHIP = {0};
	char *path CLEANUP_FREE = xasprintf("%s/membership", folder);
	struct stat st;

	assert_int_equal(membership_load(folder, &found, &b->fault), 0);
	check_ok(&b->fault, membership_store(folder, &membership, &b->fault));
	assert_int_equal(membership_load(folder, &found, &b->fault), 1);
	assert_int_equal(found.kind, MEMBERSHIP_JOINING);
	membership_clear(&found);
	check_ok(&b->fault, membership_confirm(folder, &b->fault));
	assert_int_equal(membership_load(folder, &found, &b->fault), 1);
	assert_int_equal(found.kind, MEMBERSHIP_FULL);
	assert_string_equal(found.coordinator, "OpaqueRef:c");
	assert_true(found.term == INT64_C(1) << 40);
	assert_string_equal(found.secret, "s");
	assert_string_equal(found.url, "u");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	membership_clear(&found);
	check_ok(&b->fault, membership_remove(folder, &b->fault));
	check_ok(&b->fault, membership_remove(folder, &b->fault));
	assert_int_equal(membership_load(folder, &found, &b->fault), 0);
}

static void a_damaged_membership_starts_no_pool(void **state)
{
	static const char *const texts[] = {"", "{", "[]", "{\"host\":\"h\"}"};
	struct bench *b = *state;
	char *path CLEANUP_FREE = xasprintf("%s/membership", b->here.folder.path);

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct membership found CLEANUP_MEMBERSHIP = {0};
		assert_int_equal(io_replace_file(path, texts[i], strlen(texts[i]), 0600), 0);
		check_fault(&b->fault, "INTERNAL_ERROR",
			membership_load(b->here.folder.path, &found, &b->fault));
	}
	unlink(path);
}

static void secrets_are_compared_whole(void **state)
{
	const struct rank rank = {7, "OpaqueRef:2"};
	char *session CLEANUP_FREE = link_session_format("OpaqueRef:1", "secret", &rank);
	struct link_caller caller CLEANUP_LINK_CALLER = {0};

	(void)state;
	assert_true(link_session_parse(session, &caller));
	assert_string_equal(caller.host, "OpaqueRef:1");
	assert_string_equal(caller.rank.coordinator, "OpaqueRef:2");
	assert_int_equal(caller.rank.term, 7);
	assert_true(link_secret_is(caller.secret, "secret"));
	assert_false(link_secret_is("secre", "secret"));
	assert_false(link_secret_is("secreT", "secret"));
	assert_false(link_secret_is("", ""));
	link_caller_clear(&caller);
	assert_false(link_session_parse("OpaqueRef:1", &caller));
	assert_false(link_session_parse("ferry-host/OpaqueRef:1", &caller));
	assert_false(link_session_parse("ferry-host/OpaqueRef:1/secret", &caller));
	assert_false(link_session_parse("ferry-host/OpaqueRef:1/secret/x/OpaqueRef:2", &caller));
}

static void of_two_coordinators_the_later_is_right(void **state)
{
	const struct rank ranks[] = {{1, "b"}, {2, "a"}, {2, "b"}, {3, "a"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ranks); i++)
		for (size_t j = 0; j < ARRAY_SIZE(ranks); j++)
			assert_int_equal((rank_compare(&ranks[i], &ranks[j]) > 0) -
						 (rank_compare(&ranks[i], &ranks[j]) < 0),
				(i > j) - (i < j));
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(all_that_a_host_has_comes_along),
		test(networks_that_are_the_same_become_one),
		test(the_same_uuid_in_both_pools_is_refused_and_nothing_is_left),
		test(an_adoption_whose_answer_was_lost_is_done_once),
		test(an_invitation_ends_with_the_answer_that_it_was_not_used),
		test(a_host_that_is_busy_does_not_join),
		test(what_is_no_host_is_not_adopted),
		test(an_ejected_host_takes_its_own_along),
		test(a_host_in_use_is_not_ejected),
		test(a_joining_host_is_a_member_when_that_is_confirmed),
		test(a_damaged_membership_starts_no_pool),
		test(of_two_coordinators_the_later_is_right),
		test(secrets_are_compared_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
