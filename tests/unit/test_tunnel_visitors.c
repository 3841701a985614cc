/* SPDX-License-Identifier: Apache-2.0 */
/* Who comes to a data port, and who is let in. */
#include "tests/lib/tunnel_fixture.h"

#include "agent/tunnel/preamble.h"

#include <dirent.h>
#include <gnutls/gnutls.h>
#include <pthread.h>

#define OTHER "0123456789abcdef0123456789abcdeF"
/* More than a tunnel lets stand before it, and more threads than these and the test's own are. */
#define CROWD       160
#define MAX_THREADS 100

/* --- Who is not let in --------------------------------------------------------------------------
 */

static void a_wrong_secret_opens_nothing(void **state)
{
	struct tunnel_fixture *fixture = *state;
	struct tunnel_link_params params = link_params(fixture);

	params.secret = OTHER;
	assert_int_equal(try_link(fixture, &params), -EACCES);
	params.secret = SECRET "0";
	assert_int_equal(try_link(fixture, &params), -EACCES);
	assert_int_equal(access(fixture->near_path, F_OK), -1);
	/* The door is as it was. */
	open_link(fixture);
}

static void an_unknown_door_does_not_open(void **state)
{
	struct tunnel_fixture *fixture = *state;
	struct tunnel_link_params params = link_params(fixture);

	params.door = "6f8c0e0a-9a2b-4c53-8a48-2b6e6f3b7c11/disk";
	assert_int_equal(try_link(fixture, &params), -EACCES);
	tunnel_close_door(fixture->tunnel, DOOR);
	tunnel_close_door(fixture->tunnel, DOOR);
	params.door = DOOR;
	assert_int_equal(try_link(fixture, &params), -EACCES);
}

static void a_weak_secret_is_refused_at_both_ends(void **state)
{
	struct tunnel_fixture *fixture = *state;
	struct tunnel_link_params params = link_params(fixture);

	params.secret = "short";
	assert_int_equal(try_link(fixture, &params), -EINVAL);
	struct tunnel_door door = {.name = "x", .secret = "short", .socket_path = "/x"};
	assert_int_equal(tunnel_open_door(fixture->tunnel, &door, &fixture->fault), -EINVAL);
	door = (struct tunnel_door){.name = DOOR, .secret = OTHER, .socket_path = "/x"};
	assert_int_equal(tunnel_open_door(fixture->tunnel, &door, &fixture->fault), -EEXIST);
}

struct impostor {
	struct tunnel_fixture *fixture;
	int listener;
	ssize_t heard; /* bytes of the link's, or a TLS error */
};

static void *impostor_main(void *arg)
{
	struct impostor *impostor = arg;
	gnutls_certificate_credentials_t credentials;
	gnutls_session_t session;
	char data[512];
	int code;
	int fd CLEANUP_CLOSE = accept(impostor->listener, NULL, NULL);

	gnutls_certificate_allocate_credentials(&credentials);
	gnutls_certificate_set_x509_key_file(credentials, impostor->fixture->certificate,
		impostor->fixture->key, GNUTLS_X509_FMT_PEM);
	gnutls_init(&session, GNUTLS_SERVER);
	gnutls_set_default_priority(session);
	gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials);
	gnutls_transport_set_int(session, fd);
	do
		code = gnutls_handshake(session);
	while (code < 0 && !gnutls_error_is_fatal(code));
	impostor->heard = code < 0 ? code : gnutls_record_recv(session, data, sizeof(data));
	gnutls_deinit(session);
	gnutls_certificate_free_credentials(credentials);
	return NULL;
}

/* An impostor who goes all the way in TLS, but has another key. */
static void another_key_is_told_nothing(void **state)
{
	struct tunnel_fixture *fixture = *state;
	struct impostor impostor = {.fixture = fixture};
	struct tunnel_link_params params = link_params(fixture);
	struct sockaddr_in name = {.sin_family = AF_INET};
	socklen_t length = sizeof(name);
	pthread_t thread;
	char other[] = "0000000000000000000000000000000000000000000000000000000000000000";

	impostor.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(impostor.listener, (struct sockaddr *)&name, length), 0);
	assert_int_equal(listen(impostor.listener, 1), 0);
	assert_int_equal(getsockname(impostor.listener, (struct sockaddr *)&name, &length), 0);
	assert_int_equal(pthread_create(&thread, NULL, impostor_main, &impostor), 0);
	params.port = ntohs(name.sin_port);
	params.fingerprint = other;
	assert_int_equal(try_link(fixture, &params), -EKEYREJECTED);
	assert_non_null(strstr(fixture->fault.params[0], fixture->fingerprint));
	pthread_join(thread, NULL);
	close(impostor.listener);
	assert_true(impostor.heard <= 0);
}

/* --- Visitors of other kinds --------------------------------------------------------------------
 */

static void garbage_instead_of_tls_ends_the_connection(void **state)
{
	struct tunnel_fixture *fixture = *state;
	char data[4096];
	int fd CLEANUP_CLOSE = connect_tcp(fixture);

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (char)(i * 167 + 13);
	assert_true(send(fd, data, sizeof(data), MSG_NOSIGNAL) > 0);
	read_to_end(fd);
	open_link(fixture);
}

/* In TLS, but no preamble that any version has; the answer, 0 for none. */
static char answer_to(struct tunnel_fixture *fixture, const char *bytes, size_t length)
{
	const struct limit limit = {clock_deadline(PATIENCE), NULL};
	struct stream *stream CLEANUP_STREAM = NULL;
	char answer = 0;

	check_ok(&fixture->fault, stream_connect(connect_tcp(fixture), fixture->fingerprint, &limit,
					  &stream, &fixture->fault));
	assert_int_equal(stream_write_full(stream, bytes, length, &limit), 0);
	if (stream_read_full(stream, &answer, 1, &limit) < 0)
		return 0;
	return answer;
}

static void another_version_is_told_so(void **state)
{
	assert_int_equal(answer_to(*state, "FRTN\2\377\377", 7), PREAMBLE_VERSION);
}

static void a_preamble_out_of_bounds_gets_no_answer(void **state)
{
	assert_int_equal(answer_to(*state, "FRTN\1\377\377", 7), 0);
	assert_int_equal(answer_to(*state, "GET / HTTP/1.1\r\n\r\n", 18), 0);
}

static unsigned count_threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	unsigned n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void silent_visitors_keep_nobody_out(void **state)
{
	struct tunnel_fixture *fixture = *state;
	int crowd[CROWD];

	for (size_t i = 0; i < CROWD; i++)
		crowd[i] = connect_tcp(fixture);
	open_link(fixture);
	assert_true(count_threads() < MAX_THREADS);
	/* The first who came had to go. */
	read_to_end(crowd[0]);
	for (size_t i = 0; i < CROWD; i++)
		close(crowd[i]);
}

static void a_second_link_to_a_door_is_refused(void **state)
{
	struct tunnel_fixture *fixture = *state;
	struct tunnel_link_params params = link_params(fixture);
	struct tunnel_link *first;
	uint64_t deadline = clock_deadline(PATIENCE);
	int r;

	open_link(fixture);
	first = TAKE_PTR(fixture->link);
	assert_int_equal(try_link(fixture, &params), -EBUSY);
	tunnel_link_close(first);
	/* The receiver sees the end of the first a little later. */
	do
		r = try_link(fixture, &params);
	while (r == -EBUSY && clock_now_usec() < deadline);
	check_ok(&fixture->fault, r);
}

/* The fixture's door again, for so many links and of such patience. It leads to a TCP port. */
static void reopen_door(struct tunnel_fixture *fixture, unsigned max_links, uint64_t unread_usec)
{
	struct sockaddr_in name = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(name);

	close(fixture->far_listener);
	fixture->far_listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fixture->far_listener, (struct sockaddr *)&name, length), 0);
	assert_int_equal(listen(fixture->far_listener, 4), 0);
	assert_int_equal(getsockname(fixture->far_listener, (struct sockaddr *)&name, &length), 0);
	const struct tunnel_door door = {
		.name = DOOR,
		.secret = SECRET,
		.port = ntohs(name.sin_port),
		.max_links = max_links,
		.unread_usec = unread_usec,
	};
	tunnel_close_door(fixture->tunnel, DOOR);
	check_ok(&fixture->fault, tunnel_open_door(fixture->tunnel, &door, &fixture->fault));
}

/* A link with both of its ends. */
struct pair {
	struct tunnel_link *link;
	int near, far;
};

static struct pair open_pair(struct tunnel_fixture *fixture)
{
	struct tunnel_link_params params = link_params(fixture);

	params.socket_path = NULL;
	check_ok(&fixture->fault, try_link(fixture, &params));
	struct tunnel_link *link = TAKE_PTR(fixture->link);
	return (struct pair){link, tunnel_link_take(link), accept_far(fixture)};
}

static void close_pair(struct pair *pair)
{
	close(pair->near);
	close(pair->far);
	tunnel_link_close(pair->link);
}

static void check_alive(const struct pair *pair, char byte)
{
	char answer = 0;

	assert_int_equal(write(pair->near, &byte, 1), 1);
	assert_int_equal(read(pair->far, &answer, 1), 1);
	assert_int_equal(answer, byte);
	assert_int_equal(write(pair->far, &byte, 1), 1);
	await(pair->near, POLLIN);
	assert_int_equal(read(pair->near, &answer, 1), 1);
	assert_int_equal(answer, byte);
}

static void a_door_takes_as_many_links_as_it_was_made_for(void **state)
{
	struct tunnel_fixture *fixture = *state;
	struct tunnel_link_params params = link_params(fixture);

	reopen_door(fixture, 2, 0);
	struct pair one = open_pair(fixture), two = open_pair(fixture);
	check_alive(&one, '1');
	check_alive(&two, '2');
	assert_int_equal(try_link(fixture, &params), -EBUSY);
	/* All of them are cut before this returns. */
	tunnel_close_door(fixture->tunnel, DOOR);
	assert_int_equal(read_to_end(one.far), 0);
	assert_int_equal(read_to_end(two.far), 0);
	close_pair(&one);
	close_pair(&two);
}

/* What is behind the door (tgtd) may serve nobody while one peer does not take its answers. */
static void a_peer_that_stops_reading_is_dropped(void **state)
{
	struct tunnel_fixture *fixture = *state;
	char data[4096] = "";

	reopen_door(fixture, 2, USEC_PER_SEC);
	struct pair stuck = open_pair(fixture), other = open_pair(fixture);
	uint64_t start = clock_now_usec();
	/* It ends when the other side is closed, and without that never. */
	while (send(stuck.far, data, sizeof(data), MSG_NOSIGNAL) > 0)
		assert_true(clock_now_usec() - start < PATIENCE);
	assert_true(clock_now_usec() - start >= USEC_PER_SEC);
	check_alive(&other, 'o');
	close_pair(&stuck);
	close_pair(&other);
}

static void a_door_that_leads_nowhere_says_so(void **state)
{
	struct tunnel_fixture *fixture = *state;
	struct tunnel_link_params params = link_params(fixture);

	close(TAKE_FD(fixture->far_listener));
	assert_int_equal(try_link(fixture, &params), -ENXIO);
}

static void a_peer_that_says_nothing_times_out(void **state)
{
	struct tunnel_fixture *fixture = *state;
	struct tunnel_link_params params = link_params(fixture);
	struct sockaddr_in name = {.sin_family = AF_INET};
	struct cancel *cancel CLEANUP_CANCEL = cancel_new();
	socklen_t length = sizeof(name);
	int listener CLEANUP_CLOSE = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(listener, (struct sockaddr *)&name, length), 0);
	assert_int_equal(listen(listener, 4), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&name, &length), 0);
	params.port = ntohs(name.sin_port);
	params.timeout_usec = 50 * USEC_PER_MSEC;
	assert_int_equal(try_link(fixture, &params), -ETIMEDOUT);
	cancel_request(cancel, "enough");
	params.timeout_usec = PATIENCE;
	assert_int_equal(
		tunnel_link_open(&params, cancel, &fixture->link, &fixture->fault), -ECANCELED);
	close(TAKE_FD(listener));
	assert_int_equal(try_link(fixture, &params), -ECONNREFUSED);
}

static void a_port_in_use_is_said(void **state)
{
	struct tunnel_fixture *fixture = *state;
	struct tunnel_params params = {
		.address = "127.0.0.1",
		.port = tunnel_port(fixture->tunnel),
		.certificate_file = fixture->certificate,
		.key_file = fixture->key,
	};
	struct tunnel *tunnel = NULL;

	assert_int_equal(tunnel_start(&params, &tunnel, &fixture->fault), -EADDRINUSE);
	assert_non_null(strstr(fixture->fault.params[0], "data_port"));
	params.port = 0;
	params.key_file = "/nonexistent";
	assert_int_equal(tunnel_start(&params, &tunnel, &fixture->fault), -EBADMSG);
	assert_null(tunnel);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TUNNEL_TEST(a_wrong_secret_opens_nothing),
		TUNNEL_TEST(an_unknown_door_does_not_open),
		TUNNEL_TEST(a_weak_secret_is_refused_at_both_ends),
		TUNNEL_TEST(another_key_is_told_nothing),
		TUNNEL_TEST(garbage_instead_of_tls_ends_the_connection),
		TUNNEL_TEST(another_version_is_told_so),
		TUNNEL_TEST(a_preamble_out_of_bounds_gets_no_answer),
		TUNNEL_TEST(silent_visitors_keep_nobody_out),
		TUNNEL_TEST(a_second_link_to_a_door_is_refused),
		TUNNEL_TEST(a_door_takes_as_many_links_as_it_was_made_for),
		TUNNEL_TEST(a_peer_that_stops_reading_is_dropped),
		TUNNEL_TEST(a_door_that_leads_nowhere_says_so),
		TUNNEL_TEST(a_peer_that_says_nothing_times_out),
		TUNNEL_TEST(a_port_in_use_is_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
