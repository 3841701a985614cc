/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/tunnel/stream.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define IN_BYTES ((size_t)128 << 10)
/* A record holds up to 16 KiB and is up to 256 bytes and a header longer (RFC 8446, 5.2); with it
 * GnuTLS may send a message of its own, such as a new key. */
#define RECORD_BYTES     ((size_t)16 << 10)
#define RECORD_MAX_BYTES (RECORD_BYTES + 1024)
#define OUT_BYTES        (8 * RECORD_MAX_BYTES)
#define KEY_ID_BYTES     32

/* Only TLS 1.3, only what has hardware or constant-time code; no resumption. */
static const char priorities[] = "SECURE128:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:"
				 "+AES-256-GCM:+CHACHA20-POLY1305";

struct stream_identity {
	gnutls_certificate_credentials_t credentials;
};

struct buffer {
	char *data;
	size_t start, end;
};

struct stream {
	int fd;
	gnutls_session_t session;
	gnutls_certificate_credentials_t trust; /* of the connecting side; NULL */
	const char *fingerprint;                /* during the handshake */
	char shown[2 * KEY_ID_BYTES + 1];       /* fingerprint of the key that the peer has */
	struct buffer in;                       /* from the socket, for GnuTLS */
	struct buffer out;                      /* from GnuTLS, for the socket */
	uint64_t n_sent;
	int error; /* that the socket gave, negative; 0 */
};

/* --- The accepting side's certificate -----------------------------------------------------------
 */

int stream_identity_load(const char *certificate_file, const char *key_file,
	struct stream_identity **ret_identity, struct fault *fault)
{
	struct stream_identity *identity CLEANUP_STREAM_IDENTITY = xcalloc(1, sizeof(*identity));
	int code = gnutls_certificate_allocate_credentials(&identity->credentials);

	if (code >= 0)
		code = gnutls_certificate_set_x509_key_file(
			identity->credentials, certificate_file, key_file, GNUTLS_X509_FMT_PEM);
	if (code < 0)
		return fault_text(fault, -EBADMSG, "data port: certificate %s with key %s: %s",
			certificate_file, key_file, gnutls_strerror(code));
	*ret_identity = TAKE_PTR(identity);
	return 0;
}

struct stream_identity *stream_identity_free(struct stream_identity *identity)
{
	if (!identity)
		return NULL;
	if (identity->credentials)
		gnutls_certificate_free_credentials(identity->credentials);
	free(identity);
	return NULL;
}

/* --- Between GnuTLS and the socket --------------------------------------------------------------
 */

static ssize_t pull(gnutls_transport_ptr_t arg, void *data, size_t length)
{
	struct stream *stream = arg;
	struct buffer *in = &stream->in;

	if (in->start == in->end) {
		ssize_t n = recv(stream->fd, in->data, IN_BYTES, MSG_DONTWAIT);
		if (n < 0) {
			if (errno != EAGAIN && errno != EINTR)
				stream->error = -errno;
			gnutls_transport_set_errno(stream->session, errno);
			return -1;
		}
		in->start = 0;
		in->end = (size_t)n;
	}
	size_t n = MIN(length, in->end - in->start);
	memcpy(data, in->data + in->start, n);
	in->start += n;
	return (ssize_t)n;
}

static ssize_t push(gnutls_transport_ptr_t arg, const void *data, size_t length)
{
	struct stream *stream = arg;
	struct buffer *out = &stream->out;
	size_t n = MIN(length, OUT_BYTES - out->end);

	if (n == 0) {
		gnutls_transport_set_errno(stream->session, EAGAIN);
		return -1;
	}
	memcpy(out->data + out->end, data, n);
	out->end += n;
	return (ssize_t)n;
}

bool stream_has_unsent(const struct stream *stream)
{
	return stream->out.start < stream->out.end;
}

uint64_t stream_sent(const struct stream *stream)
{
	return stream->n_sent;
}

int stream_flush(struct stream *stream)
{
	struct buffer *out = &stream->out;

	while (out->start < out->end) {
		ssize_t n = send(stream->fd, out->data + out->start, out->end - out->start,
			MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return -EAGAIN;
		if (n < 0)
			return stream->error = -errno;
		out->start += (size_t)n;
		stream->n_sent += (uint64_t)n;
	}
	out->start = out->end = 0;
	return 0;
}

/* What GnuTLS says, as an errno. */
static int stream_error(const struct stream *stream, int code)
{
	if (code == GNUTLS_E_AGAIN || code == GNUTLS_E_INTERRUPTED)
		return -EAGAIN;
	if (stream->error)
		return stream->error;
	if (code == GNUTLS_E_PREMATURE_TERMINATION || code == GNUTLS_E_PULL_ERROR ||
		code == GNUTLS_E_PUSH_ERROR || code == GNUTLS_E_SESSION_EOF)
		return -ECONNRESET;
	return -EPROTO;
}

/* --- Handshake ----------------------------------------------------------------------------------
 */

static int key_fingerprint(gnutls_session_t session, char *text)
{
	unsigned n_certificates = 0;
	unsigned char id[KEY_ID_BYTES];
	size_t length = sizeof(id);
	gnutls_x509_crt_t certificate = NULL;
	const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &n_certificates);

	if (!chain || n_certificates == 0)
		return GNUTLS_E_NO_CERTIFICATE_FOUND;
	int code = gnutls_x509_crt_init(&certificate);
	if (code < 0)
		return code;
	code = gnutls_x509_crt_import(certificate, &chain[0], GNUTLS_X509_FMT_DER);
	if (code >= 0)
		code = gnutls_x509_crt_get_key_id(
			certificate, GNUTLS_KEYID_USE_SHA256, id, &length);
	gnutls_x509_crt_deinit(certificate);
	for (size_t i = 0; code >= 0 && i < length; i++)
		snprintf(text + 2 * i, 3, "%02x", id[i]);
	return code;
}

/* Within the handshake, before our side of it is finished: a peer with another key gets no more.
 * That it holds the key is proved by the handshake itself. */
static int verify_peer(gnutls_session_t session)
{
	struct stream *stream = gnutls_session_get_ptr(session);
	int code = key_fingerprint(session, stream->shown);

	if (code < 0)
		return code;
	return strcasecmp(stream->shown, stream->fingerprint) == 0 ? 0 : GNUTLS_E_CERTIFICATE_ERROR;
}

static struct stream *stream_new(int fd)
{
	struct stream *stream = xcalloc(1, sizeof(*stream));

	stream->fd = fd;
	stream->in.data = xcalloc(1, IN_BYTES);
	stream->out.data = xcalloc(1, OUT_BYTES);
	return stream;
}

static int init_session(struct stream *stream, unsigned side,
	gnutls_certificate_credentials_t credentials, struct fault *fault)
{
	const unsigned flags = side | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS | GNUTLS_NO_SIGNAL;
	int code = gnutls_init(&stream->session, flags);

	if (code >= 0)
		code = gnutls_priority_set_direct(stream->session, priorities, NULL);
	if (code >= 0)
		code = gnutls_credentials_set(stream->session, GNUTLS_CRD_CERTIFICATE, credentials);
	if (code < 0)
		return fault_text(fault, -ENOMEM, "data port: TLS: %s", gnutls_strerror(code));
	gnutls_session_set_ptr(stream->session, stream);
	gnutls_transport_set_ptr(stream->session, stream);
	gnutls_transport_set_pull_function(stream->session, pull);
	gnutls_transport_set_push_function(stream->session, push);
	return 0;
}

static int refuse_handshake(struct stream *stream, int code, const char *peer, struct fault *fault)
{
	/* The peer learns why, if it still listens. */
	if (gnutls_alert_send_appropriate(stream->session, code) >= 0)
		stream_flush(stream);
	if (code == GNUTLS_E_CERTIFICATE_ERROR && stream->fingerprint)
		return fault_text(fault, -EKEYREJECTED,
			"data port of %s: its key has the fingerprint %s, not %s: another host "
			"answers there, or the peer's certificate was made anew",
			peer, stream->shown, stream->fingerprint);
	int r = stream_error(stream, code);
	return fault_text(fault, r, "data port: TLS handshake with %s: %s", peer,
		r == -EPROTO ? gnutls_strerror(code) : strerror(-r));
}

static int handshake(struct stream *stream, const struct limit *limit, struct fault *fault)
{
	char *peer CLEANUP_FREE = socket_peer_name(stream->fd);

	for (;;) {
		int code = gnutls_handshake(stream->session);
		if (code < 0 && gnutls_error_is_fatal(code))
			return refuse_handshake(stream, code, peer, fault);
		int r = stream_flush(stream);
		if (code >= 0 && r == 0)
			return 0;
		if (r == 0 || r == -EAGAIN)
			r = socket_await(stream->fd, r ? POLLOUT : POLLIN, limit);
		if (r < 0)
			return fault_errno(fault, r, "data port: TLS handshake with %s", peer);
	}
}

int stream_accept(int fd, const struct stream_identity *identity, const struct limit *limit,
	struct stream **ret_stream, struct fault *fault)
{
	struct stream *stream CLEANUP_STREAM = stream_new(fd);
	int r = init_session(stream, GNUTLS_SERVER, identity->credentials, fault);

	if (r == 0)
		r = handshake(stream, limit, fault);
	if (r < 0)
		return r;
	*ret_stream = TAKE_PTR(stream);
	return 0;
}

int stream_connect(int fd, const char *fingerprint, const struct limit *limit,
	struct stream **ret_stream, struct fault *fault)
{
	struct stream *stream CLEANUP_STREAM = stream_new(fd);
	int code = gnutls_certificate_allocate_credentials(&stream->trust);

	if (code < 0)
		return fault_text(fault, -ENOMEM, "data port: TLS: %s", gnutls_strerror(code));
	int r = init_session(stream, GNUTLS_CLIENT, stream->trust, fault);
	if (r < 0)
		return r;
	stream->fingerprint = fingerprint;
	gnutls_session_set_verify_function(stream->session, verify_peer);
	r = handshake(stream, limit, fault);
	stream->fingerprint = NULL;
	if (r < 0)
		return r;
	*ret_stream = TAKE_PTR(stream);
	return 0;
}

struct stream *stream_free(struct stream *stream)
{
	if (!stream)
		return NULL;
	if (stream->session)
		gnutls_deinit(stream->session);
	if (stream->trust)
		gnutls_certificate_free_credentials(stream->trust);
	cleanup_close(&stream->fd);
	free(stream->in.data);
	free(stream->out.data);
	free(stream);
	return NULL;
}

int stream_fd(const struct stream *stream)
{
	return stream->fd;
}

/* --- Bytes --------------------------------------------------------------------------------------
 */

ssize_t stream_read(struct stream *stream, void *data, size_t length)
{
	for (;;) {
		ssize_t n = gnutls_record_recv(stream->session, data, length);
		if (n >= 0)
			return n;
		/* A message of TLS itself, such as a new key, is no end. */
		if (n == GNUTLS_E_AGAIN || gnutls_error_is_fatal((int)n))
			return stream_error(stream, (int)n);
	}
}

static bool has_room(const struct stream *stream)
{
	return OUT_BYTES - stream->out.end >= 2 * RECORD_MAX_BYTES;
}

ssize_t stream_write(struct stream *stream, const void *data, size_t length)
{
	size_t taken = 0;

	while (taken < length && has_room(stream)) {
		size_t chunk = MIN(length - taken, RECORD_BYTES);
		ssize_t n = gnutls_record_send(stream->session, (const char *)data + taken, chunk);
		if (n < 0)
			return stream_error(stream, (int)n);
		taken += (size_t)n;
	}
	return taken ? (ssize_t)taken : -EAGAIN;
}

int stream_end(struct stream *stream)
{
	if (!has_room(stream))
		return -EAGAIN;
	int code = gnutls_bye(stream->session, GNUTLS_SHUT_WR);
	return code < 0 ? stream_error(stream, code) : 0;
}

int stream_read_full(struct stream *stream, void *data, size_t length, const struct limit *limit)
{
	size_t done = 0;

	while (done < length) {
		ssize_t n = stream_read(stream, (char *)data + done, length - done);
		if (n == 0)
			return -ENODATA;
		if (n > 0) {
			done += (size_t)n;
			continue;
		}
		int r = n == -EAGAIN ? socket_await(stream->fd, POLLIN, limit) : (int)n;
		if (r < 0)
			return r;
	}
	return 0;
}

int stream_write_full(
	struct stream *stream, const void *data, size_t length, const struct limit *limit)
{
	size_t done = 0;

	while (done < length || stream_has_unsent(stream)) {
		ssize_t n = done < length
				    ? stream_write(stream, (const char *)data + done, length - done)
				    : 0;
		if (n > 0)
			done += (size_t)n;
		if (n < 0 && n != -EAGAIN)
			return (int)n;
		int r = stream_flush(stream);
		if (r == -EAGAIN)
			r = socket_await(stream->fd, POLLOUT, limit);
		if (r < 0)
			return r;
	}
	return 0;
}
