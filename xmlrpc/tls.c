/* SPDX-License-Identifier: Apache-2.0 */
#include "xmlrpc/tls.h"

#include "base/alloc.h"
#include "base/io.h"
#include "base/uuid.h"

#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define MAX_PEM_BYTES 65536
#define DAY_SEC       86400
#define LIFETIME_SEC  (INT64_C(20) * 365 * DAY_SEC)
#define SHA256_BYTES  32

static void cleanup_key(gnutls_x509_privkey_t *key)
{
	if (*key)
		gnutls_x509_privkey_deinit(*key);
}

static void cleanup_certificate(gnutls_x509_crt_t *certificate)
{
	if (*certificate)
		gnutls_x509_crt_deinit(*certificate);
}

static void cleanup_datum(gnutls_datum_t *datum)
{
	gnutls_free(datum->data);
}

static int tls_fault(struct fault *fault, int code, const char *what, const char *path)
{
	return fault_text(fault, -EBADMSG, "%s %s: %s", what, path, gnutls_strerror(code));
}

static int read_pem(const char *path, struct buf *pem, struct fault *fault)
{
	int r = io_read_file(path, MAX_PEM_BYTES, pem);

	return r < 0 ? fault_errno(fault, r, "cannot read %s", path) : 0;
}

static gnutls_datum_t datum_of(const struct buf *pem)
{
	return (gnutls_datum_t){.data = (unsigned char *)pem->data, .size = (unsigned)pem->length};
}

/* --- Key ----------------------------------------------------------------------------------------
 */

static int key_make(const char *path, gnutls_x509_privkey_t key, struct fault *fault)
{
	gnutls_datum_t pem CLEANUP(cleanup_datum) = {0};
	unsigned bits = GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1);
	int code = gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, bits, 0);

	if (code >= 0)
		code = gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem);
	if (code < 0)
		return tls_fault(fault, code, "cannot make the key", path);
	int r = io_replace_file(path, pem.data, pem.size, 0600);
	gnutls_memset(pem.data, 0, pem.size);
	return r < 0 ? fault_errno(fault, r, "cannot write the key %s", path) : 0;
}

static int key_load(const char *path, gnutls_x509_privkey_t key, struct fault *fault)
{
	struct buf pem CLEANUP_BUF = BUF_INIT;
	int r = read_pem(path, &pem, fault);

	if (r < 0)
		return r;
	gnutls_datum_t datum = datum_of(&pem);
	int code = gnutls_x509_privkey_import2(key, &datum, GNUTLS_X509_FMT_PEM, NULL, 0);
	if (pem.data)
		gnutls_memset(pem.data, 0, pem.length);
	return code < 0 ? tls_fault(fault, code, "no private key in", path) : 0;
}

/* --- Certificate --------------------------------------------------------------------------------
 */

static int set_names(gnutls_x509_crt_t certificate, const char *name, const char *address)
{
	unsigned char ip[sizeof(struct in6_addr)];
	unsigned ip_length = 0;
	int code = gnutls_x509_crt_set_dn_by_oid(
		certificate, GNUTLS_OID_X520_COMMON_NAME, 0, name, (unsigned)strlen(name));

	if (code >= 0)
		code = gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_DNSNAME, name,
			(unsigned)strlen(name), GNUTLS_FSAN_SET);
	if (inet_pton(AF_INET, address, ip) == 1)
		ip_length = sizeof(struct in_addr);
	else if (inet_pton(AF_INET6, address, ip) == 1)
		ip_length = sizeof(struct in6_addr);
	if (code >= 0 && ip_length)
		code = gnutls_x509_crt_set_subject_alt_name(
			certificate, GNUTLS_SAN_IPADDRESS, ip, ip_length, GNUTLS_FSAN_APPEND);
	return code;
}

static int set_lifetime(gnutls_x509_crt_t certificate)
{
	time_t now = time(NULL);
	/* A day back: peers' clocks differ. */
	int code = gnutls_x509_crt_set_activation_time(certificate, now - DAY_SEC);

	if (code < 0)
		return code;
	return gnutls_x509_crt_set_expiration_time(certificate, now + LIFETIME_SEC);
}

static int set_usage(gnutls_x509_crt_t certificate)
{
	unsigned char serial[16];
	int code = gnutls_x509_crt_set_version(certificate, 3);

	random_bytes(serial, sizeof(serial));
	serial[0] &= 0x7f; /* positive: RFC 5280, 4.1.2.2 */
	serial[0] |= 0x40;
	if (code >= 0)
		code = gnutls_x509_crt_set_serial(certificate, serial, sizeof(serial));
	if (code >= 0)
		code = gnutls_x509_crt_set_basic_constraints(certificate, 0, -1);
	if (code >= 0)
		code = gnutls_x509_crt_set_key_usage(certificate, GNUTLS_KEY_DIGITAL_SIGNATURE);
	if (code >= 0)
		code = gnutls_x509_crt_set_key_purpose_oid(
			certificate, GNUTLS_KP_TLS_WWW_SERVER, 0);
	return code;
}

static int certificate_make(const char *path, gnutls_x509_privkey_t key, const char *name,
	const char *address, struct fault *fault)
{
	gnutls_x509_crt_t certificate CLEANUP(cleanup_certificate) = NULL;
	gnutls_datum_t pem CLEANUP(cleanup_datum) = {0};
	int code = gnutls_x509_crt_init(&certificate);

	if (code >= 0)
		code = gnutls_x509_crt_set_key(certificate, key);
	if (code >= 0)
		code = set_names(certificate, name, address);
	if (code >= 0)
		code = set_lifetime(certificate);
	if (code >= 0)
		code = set_usage(certificate);
	if (code >= 0)
		code = gnutls_x509_crt_sign2(certificate, certificate, key, GNUTLS_DIG_SHA256, 0);
	if (code >= 0)
		code = gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_PEM, &pem);
	if (code < 0)
		return tls_fault(fault, code, "cannot make the certificate", path);
	int r = io_replace_file(path, pem.data, pem.size, 0644);
	return r < 0 ? fault_errno(fault, r, "cannot write the certificate %s", path) : 0;
}

int tls_ensure_certificate(const char *certificate_file, const char *key_file, const char *name,
	const char *address, struct fault *fault)
{
	bool has_certificate = access(certificate_file, F_OK) == 0;
	bool has_key = access(key_file, F_OK) == 0;

	if (has_certificate && has_key)
		return 0;
	if (has_certificate)
		return fault_text(fault, -ENOENT,
			"the certificate %s is there but its key %s is not; restore the key, or "
			"remove the certificate to have both made anew (peers must then learn the "
			"new fingerprint)",
			certificate_file, key_file);
	gnutls_x509_privkey_t key CLEANUP(cleanup_key) = NULL;
	int code = gnutls_x509_privkey_init(&key);
	if (code < 0)
		return tls_fault(fault, code, "cannot make the key", key_file);
	/* A key alone is what a crash between the two leaves: its fingerprint may be known. */
	int r = has_key ? key_load(key_file, key, fault) : key_make(key_file, key, fault);
	if (r < 0)
		return r;
	return certificate_make(certificate_file, key, name, address, fault);
}

/* --- Fingerprint --------------------------------------------------------------------------------
 */

int tls_fingerprint(const char *certificate_file, char **ret_fingerprint, struct fault *fault)
{
	gnutls_x509_crt_t certificate CLEANUP(cleanup_certificate) = NULL;
	struct buf pem CLEANUP_BUF = BUF_INIT;
	unsigned char hash[SHA256_BYTES];
	size_t n = sizeof(hash);
	int r = read_pem(certificate_file, &pem, fault);

	if (r < 0)
		return r;
	gnutls_datum_t datum = datum_of(&pem);
	int code = gnutls_x509_crt_init(&certificate);
	if (code >= 0)
		code = gnutls_x509_crt_import(certificate, &datum, GNUTLS_X509_FMT_PEM);
	if (code >= 0)
		code = gnutls_x509_crt_get_key_id(certificate, GNUTLS_KEYID_USE_SHA256, hash, &n);
	if (code < 0)
		return tls_fault(fault, code, "no certificate in", certificate_file);
	struct buf text CLEANUP_BUF = BUF_INIT;
	for (size_t i = 0; i < n; i++)
		buf_printf(&text, "%02x", hash[i]);
	*ret_fingerprint = buf_take_string(&text);
	return 0;
}

int tls_fingerprint_pin(const char *fingerprint, char **ret_pin)
{
	gnutls_datum_t base64 CLEANUP(cleanup_datum) = {0};
	unsigned char hash[SHA256_BYTES];
	gnutls_datum_t raw = {.data = hash, .size = sizeof(hash)};

	if (strlen(fingerprint) != 2 * sizeof(hash))
		return -EINVAL;
	for (size_t i = 0; i < sizeof(hash); i++) {
		char digits[3] = {fingerprint[2 * i], fingerprint[2 * i + 1], '\0'};
		char *end;
		hash[i] = (unsigned char)strtoul(digits, &end, 16);
		if (end != digits + 2 || strspn(digits, "0123456789abcdefABCDEF") != 2)
			return -EINVAL;
	}
	if (gnutls_base64_encode2(&raw, &base64) < 0)
		return -ENOMEM;
	*ret_pin = xasprintf("sha256//%.*s", (int)base64.size, (const char *)base64.data);
	return 0;
}
