/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/check.h"

#include "base/cleanup.h"
#include "base/parse.h"

#include <errno.h>

static void integers_at_the_edges_are_exact(void **state)
{
	int64_t i;
	uint64_t u;

	(void)state;
	assert_int_equal(parse_int64("-9223372036854775808", &i), 0);
	assert_true(i == INT64_MIN);
	assert_int_equal(parse_int64("9223372036854775807", &i), 0);
	assert_true(i == INT64_MAX);
	assert_int_equal(parse_int64("-0", &i), 0);
	assert_true(i == 0);
	assert_int_equal(parse_uint64("18446744073709551615", &u), 0);
	assert_true(u == UINT64_MAX);
	assert_int_equal(parse_uint64("000000000000000000000000000001", &u), 0);
	assert_true(u == 1);
}

static void an_integer_that_does_not_fit_is_out_of_range(void **state)
{
	int64_t i = 42;
	uint64_t u = 42;

	(void)state;
	assert_int_equal(parse_int64("9223372036854775808", &i), -ERANGE);
	assert_int_equal(parse_int64("-9223372036854775809", &i), -ERANGE);
	assert_int_equal(parse_uint64("18446744073709551616", &u), -ERANGE);
	assert_int_equal(parse_uint64("99999999999999999999999", &u), -ERANGE);
	assert_int_equal(parse_range("9", 10, 20, &u), -ERANGE);
	assert_int_equal(parse_range("21", 10, 20, &u), -ERANGE);
	assert_true(i == 42 && u == 42);
	assert_int_equal(parse_range("20", 10, 20, &u), 0);
	assert_true(u == 20);
}

static void text_around_a_number_is_refused(void **state)
{
	static const char *const bad[] = {
		"", " 1", "1 ", "+1", "--1", "-", "1x", "0x10", "1.0", "1e3", "\n", "١"};
	int64_t i = 42;
	uint64_t u = 42;

	(void)state;
	for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
		assert_int_equal(parse_int64(bad[n], &i), -EINVAL);
		assert_int_equal(parse_uint64(bad[n], &u), -EINVAL);
	}
	assert_int_equal(parse_uint64("-1", &u), -EINVAL);
	assert_true(i == 42 && u == 42);
}

static void doubles_are_finite_and_decimal(void **state)
{
	static const char *const bad[] = {
		"", "nan", "inf", "-infinity", "0x1p3", "1,5", " 1", "1 ", ".", "e5", "1e"};
	double d = 42;

	(void)state;
	for (size_t n = 0; n < ARRAY_SIZE(bad); n++)
		assert_int_equal(parse_double(bad[n], &d), -EINVAL);
	assert_int_equal(parse_double("1e999", &d), -ERANGE);
	assert_true(d == 42);
	assert_int_equal(parse_double("-2.5e1", &d), 0);
	assert_true(d == -25);
	assert_int_equal(parse_double("30", &d), 0);
	assert_true(d == 30);
}

static void a_number_close_to_zero_is_not_out_of_range(void **state)
{
	double d = 42;

	(void)state;
	assert_int_equal(parse_double("1e-400", &d), 0);
	assert_true(d == 0);
	assert_int_equal(parse_double("4.9e-324", &d), 0);
	assert_true(d > 0);
}

static void booleans_have_eight_spellings(void **state)
{
	static const char *const yes[] = {"true", "yes", "on", "1"};
	static const char *const no[] = {"false", "no", "off", "0"};
	static const char *const bad[] = {"", "True", "y", "2", "true ", "01"};
	bool b = false;

	(void)state;
	for (size_t n = 0; n < ARRAY_SIZE(yes); n++) {
		assert_int_equal(parse_bool(yes[n], &b), 0);
		assert_true(b);
		assert_int_equal(parse_bool(no[n], &b), 0);
		assert_false(b);
	}
	for (size_t n = 0; n < ARRAY_SIZE(bad); n++)
		assert_int_equal(parse_bool(bad[n], &b), -EINVAL);
}

static void sizes_are_powers_of_1024(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{"0", 0},
		{"512", 512},
		{"4K", 4096},
		{"4KiB", 4096},
		{"1M", UINT64_C(1) << 20},
		{"20GiB", UINT64_C(20) << 30},
		{"16777215T", UINT64_C(16777215) << 40},
	};
	static const char *const bad[] = {
		"", "K", "1k", "1KB", "1 K", "1.5G", "-1", "1Ki", "1GiBx"};
	uint64_t bytes = 42;

	(void)state;
	for (size_t n = 0; n < ARRAY_SIZE(good); n++) {
		assert_int_equal(parse_size(good[n].text, &bytes), 0);
		assert_true(bytes == good[n].bytes);
	}
	for (size_t n = 0; n < ARRAY_SIZE(bad); n++)
		assert_int_equal(parse_size(bad[n], &bytes), -EINVAL);
	assert_int_equal(parse_size("16777216T", &bytes), -ERANGE);
	assert_int_equal(parse_size("18446744073709551616", &bytes), -ERANGE);
}

static void durations_without_a_unit_are_seconds(void **state)
{
	static const struct {
		const char *text;
		uint64_t usec;
	} good[] = {
		{"0", 0},
		{"7", 7000000},
		{"7s", 7000000},
		{"250us", 250},
		{"250ms", 250000},
		{"3min", 180000000},
		{"2h", UINT64_C(7200000000)},
		{"1d", UINT64_C(86400000000)},
	};
	static const char *const bad[] = {"", "s", "1m", "1.5s", "1 s", "-1s", "1S"};
	uint64_t usec;

	(void)state;
	for (size_t n = 0; n < ARRAY_SIZE(good); n++) {
		assert_int_equal(parse_duration(good[n].text, &usec), 0);
		assert_true(usec == good[n].usec);
	}
	for (size_t n = 0; n < ARRAY_SIZE(bad); n++)
		assert_int_equal(parse_duration(bad[n], &usec), -EINVAL);
	assert_int_equal(parse_duration("213503983d", &usec), -ERANGE);
}

static void addresses_name_host_and_port(void **state)
{
	static const struct {
		const char *text;
		const char *host;
		uint16_t port;
	} good[] = {
		{"127.0.0.1:443", "127.0.0.1", 443},
		{"host.example:0", "host.example", 0},
		{"[::1]:65535", "::1", 65535},
	};
	static const char *const bad[] = {"", ":", "host", "host:", ":80", "[]:80", "[::1]",
		"[::1:80", "[::1]x:80", "::1:80", "host:80x", "host:-1"};
	uint16_t port;

	(void)state;
	for (size_t n = 0; n < ARRAY_SIZE(good); n++) {
		char *host CLEANUP_FREE = NULL;
		assert_int_equal(parse_address(good[n].text, &host, &port), 0);
		assert_string_equal(host, good[n].host);
		assert_int_equal(port, good[n].port);
	}
	for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
		char *host = NULL;
		assert_int_equal(parse_address(bad[n], &host, &port), -EINVAL);
		assert_null(host);
	}
	char *host = NULL;
	assert_int_equal(parse_address("host:65536", &host, &port), -ERANGE);
	assert_null(host);
}

static void utf8_follows_rfc_3629(void **state)
{
	static const char *const good[] = {
		"", "plain", "é", "€", "😀", "\xef\xbf\xbf", "\xf4\x8f\xbf\xbf"};
	static const char *const bad[] = {
		"\x80",             /* a continuation alone */
		"\xc3",             /* torn */
		"\xe2\x82",         /* torn */
		"\xc0\xaf",         /* overlong slash */
		"\xe0\x80\xaf",     /* overlong slash */
		"\xf0\x80\x80\xaf", /* overlong slash */
		"\xed\xa0\x80",     /* a surrogate */
		"\xf4\x90\x80\x80", /* above U+10FFFF */
		"\xff",
		"a\xc3(",
	};

	(void)state;
	for (size_t n = 0; n < ARRAY_SIZE(good); n++)
		assert_true(utf8_is_valid(good[n], strlen(good[n])));
	for (size_t n = 0; n < ARRAY_SIZE(bad); n++)
		assert_false(utf8_is_valid(bad[n], strlen(bad[n])));
	assert_false(utf8_is_valid("a\0b", 3));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(integers_at_the_edges_are_exact),
		cmocka_unit_test(an_integer_that_does_not_fit_is_out_of_range),
		cmocka_unit_test(text_around_a_number_is_refused),
		cmocka_unit_test(doubles_are_finite_and_decimal),
		cmocka_unit_test(a_number_close_to_zero_is_not_out_of_range),
		cmocka_unit_test(booleans_have_eight_spellings),
		cmocka_unit_test(sizes_are_powers_of_1024),
		cmocka_unit_test(durations_without_a_unit_are_seconds),
		cmocka_unit_test(addresses_name_host_and_port),
		cmocka_unit_test(utf8_follows_rfc_3629),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
