/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/copy/nbd_session.h"

#include "agent/copy/endpoint_impl.h"
#include "base/alloc.h"

#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Guests' images have sectors of 512 or 4096 bytes; the copier's requests fit both. */
#define MAX_BLOCK 4096

int nbd_session_die(struct nbd_session *session, int error, const char *format, ...)
{
	va_list args;

	if (session->dead)
		return session->dead;
	va_start(args, format);
	vsnprintf(session->error, sizeof(session->error), format, args);
	va_end(args);
	session->dead = error;
	return error;
}

static const char *last_error(void)
{
	const char *text = nbd_get_error();

	return text ? text : "the server closed the connection";
}

static void notify(struct nbd_session *session, short events)
{
	unsigned direction = nbd_aio_get_direction(session->handle);
	int r;

	/* POLLHUP and POLLERR come whatever was asked for: whoever is to act finds out why. */
	if ((direction & LIBNBD_AIO_DIRECTION_READ) && (events & ~POLLOUT))
		r = nbd_aio_notify_read(session->handle);
	else
		r = nbd_aio_notify_write(session->handle);
	if (r < 0 || nbd_aio_is_dead(session->handle) || nbd_aio_is_closed(session->handle))
		nbd_session_die(session, -ECONNRESET, "%s: connection lost: %s", session->name,
			last_error());
}

int nbd_session_pump(struct nbd_session *session, int wake_fd, uint64_t deadline_usec,
	const struct cancel *cancel, bool *ret_woken)
{
	if (session->dead)
		return session->dead;
	unsigned direction = nbd_aio_get_direction(session->handle);
	struct pollfd fds[] = {
		{.fd = nbd_aio_get_fd(session->handle)},
		{.fd = wake_fd, .events = POLLIN},
	};
	if (direction & LIBNBD_AIO_DIRECTION_READ)
		fds[0].events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		fds[0].events |= POLLOUT;
	int r = cancel_poll(cancel, fds, wake_fd >= 0 ? 2 : 1, deadline_usec);
	if (r <= 0)
		return r;
	if (ret_woken)
		*ret_woken = wake_fd >= 0 && fds[1].revents;
	if (fds[0].revents)
		notify(session, fds[0].revents);
	return session->dead ? session->dead : 1;
}

void nbd_session_bury(struct nbd_session *session)
{
	if (session->handle)
		nbd_close(session->handle);
	session->handle = NULL;
}

void nbd_session_bye(struct nbd_session *session)
{
	if (session->handle && !session->dead && nbd_aio_in_flight(session->handle) == 0)
		(void)nbd_aio_disconnect(session->handle, 0);
}

void nbd_session_deinit(struct nbd_session *session)
{
	nbd_session_bury(session);
	free(session->name);
	session->name = NULL;
}

/* --- Opening ------------------------------------------------------------------------------------
 */

static int configure(struct nbd_session *session, const char *export_name)
{
	struct nbd_handle *handle = session->handle;

	if (nbd_set_export_name(handle, export_name) < 0 ||
		nbd_add_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
		/* Whoever reads looks at a buffer only after its request was done without error. */
		nbd_set_pread_initialize(handle, false) < 0)
		return -nbd_get_errno();
	return 0;
}

/* A socket or an export that is not there is said as what it is. */
static int connect_error(int error)
{
	return error == ENOENT || error == ECONNREFUSED ? -error : -ECONNRESET;
}

static int await_ready(struct nbd_session *session, uint64_t deadline_usec,
	const struct cancel *cancel, struct fault *fault)
{
	while (nbd_aio_is_connecting(session->handle) > 0) {
		int r = nbd_session_pump(session, -1, deadline_usec, cancel, NULL);
		if (r == 0)
			return fault_text(
				fault, -ETIMEDOUT, "%s: no answer in time", session->name);
		if (r == -ECANCELED)
			return fault_text(fault, r, "%s: connecting was cancelled", session->name);
		if (r < 0)
			return fault_text(
				fault, connect_error(nbd_get_errno()), "%s", session->error);
	}
	if (nbd_aio_is_ready(session->handle) > 0)
		return 0;
	return fault_text(fault, connect_error(nbd_get_errno()), "%s: cannot connect: %s",
		session->name, last_error());
}

static int check_export(
	struct nbd_session *session, const struct endpoint_spec *spec, struct fault *fault)
{
	int64_t size = nbd_get_size(session->handle);
	int64_t block = nbd_get_block_size(session->handle, LIBNBD_SIZE_MINIMUM);

	block = MAX(block, ENDPOINT_SECTOR);
	if (size <= 0 || block > MAX_BLOCK || size % block)
		return fault_text(fault, -EINVAL,
			"%s has %lld bytes in blocks of %lld: a disk has one or more whole blocks "
			"of at most %d",
			session->name, (long long)size, (long long)block, MAX_BLOCK);
	if (spec->size_bytes && spec->size_bytes != (uint64_t)size)
		return fault_text(fault, -EIO, "%s has %lld bytes, not the %llu expected",
			session->name, (long long)size, (unsigned long long)spec->size_bytes);
	if (spec->writable &&
		(nbd_is_read_only(session->handle) != 0 || nbd_can_zero(session->handle) != 1 ||
			nbd_can_flush(session->handle) != 1))
		return fault_text(fault, -EROFS,
			"%s cannot be written to: it is read-only, or lacks zeroing or flushing",
			session->name);
	session->size_bytes = (uint64_t)size;
	session->block_bytes = (uint32_t)block;
	session->has_df = nbd_can_df(session->handle) == 1;
	session->has_map =
		nbd_can_meta_context(session->handle, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
	return 0;
}

int nbd_session_open(struct nbd_session *session, const struct endpoint_spec *spec,
	uint64_t deadline_usec, const struct cancel *cancel, struct fault *fault)
{
	*session = (struct nbd_session){
		.name = xasprintf("NBD export %s at %s", spec->export_name, spec->socket_path),
		.handle = nbd_create(),
	};
	if (!session->handle)
		return fault_text(fault, -ENOMEM, "%s: %s", session->name, last_error());
	int r = configure(session, spec->export_name);
	if (r < 0)
		return fault_text(fault, r, "%s: %s", session->name, last_error());
	if (nbd_aio_connect_unix(session->handle, spec->socket_path) < 0)
		return fault_text(fault, connect_error(nbd_get_errno()), "%s: cannot connect: %s",
			session->name, last_error());
	r = await_ready(session, deadline_usec, cancel, fault);
	return r < 0 ? r : check_export(session, spec, fault);
}
