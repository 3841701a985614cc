/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/alloc.h"
#include "base/io.h"
#include "xmlrpc/tls.h"

#include <errno.h>
#include <gnutls/x509.h>
#include <sys/stat.h>

struct fixture {
	char folder[32];
	char *certificate;
	char *key;
};

static int setup(void **state)
{
	struct fixture *fixture = xcalloc(1, sizeof(*fixture));

	strcpy(fixture->folder, "/tmp/ferry-tls-XXXXXX");
	assert_non_null(mkdtemp(fixture->folder));
	fixture->certificate = xasprintf("%s/server.crt", fixture->folder);
	fixture->key = xasprintf("%s/server.key", fixture->folder);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	unlink(fixture->certificate);
	unlink(fixture->key);
	assert_int_equal(rmdir(fixture->folder), 0);
	free(fixture->certificate);
	free(fixture->key);
	free(fixture);
	return 0;
}

static int ensure(struct fixture *fixture, struct fault *fault)
{
	return tls_ensure_certificate(
		fixture->certificate, fixture->key, "host-a", "192.0.2.7", fault);
}

static char *fingerprint(struct fixture *fixture)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	char *text = NULL;

	check_ok(&fault, tls_fingerprint(fixture->certificate, &text, &fault));
	assert_int_equal(strlen(text), 64);
	assert_int_equal(strspn(text, "0123456789abcdef"), 64);
	return text;
}

static void a_certificate_is_made_once(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct fixture *fixture = *state;
	struct stat info;

	check_ok(&fault, ensure(fixture, &fault));
	assert_int_equal(stat(fixture->key, &info), 0);
	assert_int_equal(info.st_mode & 0777, 0600);
	char *first CLEANUP_FREE = fingerprint(fixture);
	check_ok(&fault, ensure(fixture, &fault));
	char *second CLEANUP_FREE = fingerprint(fixture);
	assert_string_equal(first, second);
}

static void the_certificate_names_host_and_address(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct fixture *fixture = *state;
	struct buf pem CLEANUP_BUF = BUF_INIT;
	gnutls_x509_crt_t certificate;
	unsigned is_ok;

	check_ok(&fault, ensure(fixture, &fault));
	assert_int_equal(io_read_file(fixture->certificate, 65536, &pem), 0);
	gnutls_datum_t datum = {(unsigned char *)pem.data, (unsigned)pem.length};
	assert_int_equal(gnutls_x509_crt_init(&certificate), 0);
	assert_int_equal(gnutls_x509_crt_import(certificate, &datum, GNUTLS_X509_FMT_PEM), 0);
	assert_true(gnutls_x509_crt_check_hostname(certificate, "host-a"));
	assert_true(gnutls_x509_crt_check_hostname(certificate, "192.0.2.7"));
	assert_false(gnutls_x509_crt_check_hostname(certificate, "192.0.2.8"));
	is_ok = gnutls_x509_crt_check_issuer(certificate, certificate);
	assert_true(is_ok);
	time_t until = gnutls_x509_crt_get_expiration_time(certificate);
	assert_true(until > time(NULL) + (time_t)19 * 365 * 86400);
	gnutls_x509_crt_deinit(certificate);
}

static void a_key_without_certificate_keeps_its_fingerprint(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct fixture *fixture = *state;

	check_ok(&fault, ensure(fixture, &fault));
	char *first CLEANUP_FREE = fingerprint(fixture);
	assert_int_equal(unlink(fixture->certificate), 0);
	check_ok(&fault, ensure(fixture, &fault));
	char *second CLEANUP_FREE = fingerprint(fixture);
	assert_string_equal(first, second);
}

static void a_certificate_without_key_is_refused(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct fixture *fixture = *state;

	check_ok(&fault, ensure(fixture, &fault));
	assert_int_equal(unlink(fixture->key), 0);
	assert_int_equal(ensure(fixture, &fault), -ENOENT);
	assert_non_null(strstr(fault.params[0], fixture->key));
}

static void what_is_no_certificate_is_named(void **state)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct fixture *fixture = *state;
	char *text = NULL;

	assert_int_equal(tls_fingerprint(fixture->certificate, &text, &fault), -ENOENT);
	assert_int_equal(io_replace_file(fixture->certificate, "junk", 4, 0600), 0);
	assert_int_equal(tls_fingerprint(fixture->certificate, &text, &fault), -EBADMSG);
	assert_non_null(strstr(fault.params[0], fixture->certificate));
	assert_null(text);
}

static void a_pin_is_the_fingerprint_in_base64(void **state)
{
	static const char *const bad[] = {"", "00", "zz", NULL};
	char *pin CLEANUP_FREE = NULL;
	char hex[65];

	(void)state;
	for (int i = 0; i < 32; i++)
		snprintf(hex + 2 * (size_t)i, 3, "%02X", i);
	assert_int_equal(tls_fingerprint_pin(hex, &pin), 0);
	assert_string_equal(pin, "sha256//AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
	for (size_t i = 0; bad[i]; i++)
		assert_int_equal(tls_fingerprint_pin(bad[i], &pin), -EINVAL);
	hex[10] = '+';
	assert_int_equal(tls_fingerprint_pin(hex, &pin), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_certificate_is_made_once, setup, teardown),
		cmocka_unit_test_setup_teardown(
			the_certificate_names_host_and_address, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_key_without_certificate_keeps_its_fingerprint, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_certificate_without_key_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_no_certificate_is_named, setup, teardown),
		cmocka_unit_test(a_pin_is_the_fingerprint_in_base64),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
