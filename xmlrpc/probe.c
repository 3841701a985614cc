/* SPDX-License-Identifier: Apache-2.0 */
#include "xmlrpc/probe.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"

#include <curl/curl.h>
#include <errno.h>
#include <gnutls/x509.h>
#include <string.h>

DEFINE_CLEANUP(CURL *, curl_easy_cleanup)
DEFINE_CLEANUP(gnutls_x509_crt_t, gnutls_x509_crt_deinit)

static int check_cancel(void *cancel, curl_off_t dt, curl_off_t dn, curl_off_t ut, curl_off_t un)
{
	(void)dt, (void)dn, (void)ut, (void)un;
	return cancel_is_requested(cancel);
}

static int to_errno(CURLcode code, const struct cancel *cancel)
{
	if (cancel_is_requested(cancel))
		return -ECANCELED;
	switch (code) {
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_COULDNT_RESOLVE_HOST:
		return -EHOSTUNREACH;
	case CURLE_COULDNT_CONNECT:
		return -ECONNREFUSED;
	default:
		return -EPROTO;
	}
}

/* The server's own certificate, in PEM: the first of the chain. Owned by curl. */
static const char *first_certificate(CURL *curl)
{
	static const char key[] = "Cert:";
	struct curl_certinfo *chain = NULL;

	if (curl_easy_getinfo(curl, CURLINFO_CERTINFO, &chain) != CURLE_OK || !chain ||
		chain->num_of_certs < 1)
		return NULL;
	for (const struct curl_slist *item = chain->certinfo[0]; item; item = item->next)
		if (strncmp(item->data, key, strlen(key)) == 0)
			return item->data + strlen(key);
	return NULL;
}

static char *hex_of(const unsigned char *hash, size_t size)
{
	struct buf text CLEANUP_BUF = BUF_INIT;

	for (size_t i = 0; i < size; i++)
		buf_printf(&text, "%02x", hash[i]);
	return buf_take_string(&text);
}

static int read_certificate(const char *pem, struct probe *ret_probe)
{
	const gnutls_datum_t data = {(unsigned char *)pem, (unsigned)strlen(pem)};
	gnutls_x509_crt_t crt CLEANUP(cleanup_gnutls_x509_crt_deinit) = NULL;
	unsigned char whole[32];
	unsigned char key[32];
	size_t n_whole = sizeof(whole);
	size_t n_key = sizeof(key);

	if (gnutls_x509_crt_init(&crt) < 0 ||
		gnutls_x509_crt_import(crt, &data, GNUTLS_X509_FMT_PEM) < 0 ||
		gnutls_x509_crt_get_fingerprint(crt, GNUTLS_DIG_SHA256, whole, &n_whole) < 0 ||
		gnutls_x509_crt_get_key_id(crt, GNUTLS_KEYID_USE_SHA256, key, &n_key) < 0)
		return -EPROTO;
	ret_probe->certificate = hex_of(whole, n_whole);
	ret_probe->key = hex_of(key, n_key);
	return 0;
}

void probe_clear(struct probe *probe)
{
	free(probe->key);
	free(probe->certificate);
	*probe = (struct probe)PROBE_INIT;
}

int probe_server(const char *url, uint64_t deadline_usec, const struct cancel *cancel,
	struct probe *ret_probe, struct fault *fault)
{
	CURL *curl CLEANUP(cleanup_curl_easy_cleanup) = curl_easy_init();
	char reason[CURL_ERROR_SIZE] = "";
	int timeout = clock_poll_timeout(deadline_usec);

	if (!curl)
		return fault_text(fault, -ENOMEM, "libcurl cannot be started");
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_CONNECT_ONLY, 1L);
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_CERTINFO, 1L);
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, timeout > 0 ? (long)timeout : 1L);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);
	curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, check_cancel);
	curl_easy_setopt(curl, CURLOPT_XFERINFODATA, cancel);
	CURLcode code = curl_easy_perform(curl);
	if (code != CURLE_OK)
		return fault_set(fault, to_errno(code, cancel), "CANNOT_CONTACT_HOST", url,
			*reason ? reason : curl_easy_strerror(code), NULL);
	const char *pem = first_certificate(curl);
	if (!pem || read_certificate(pem, ret_probe) < 0)
		return fault_set(fault, -EPROTO, "CANNOT_CONTACT_HOST", url,
			"it shows no certificate", NULL);
	return 0;
}
