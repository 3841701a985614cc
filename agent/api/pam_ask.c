/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/pam_ask.h"

#include "agent/api/pam_words.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int connect_to(const char *path, struct fault *fault)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(address.sun_path))
		return fault_text(fault, -ENAMETOOLONG,
			"the path of the socket of ferry-pam is longer than %zu bytes: %s",
			sizeof(address.sun_path) - 1, path);
	strcpy(address.sun_path, path);
	int fd CLEANUP_CLOSE = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		int error = -errno;
		return fault_errno(fault, error,
			"PAM cannot be asked: %s (systemctl enable --now ferry-pam.socket)", path);
	}
	return TAKE_FD(fd);
}

static size_t put(char *words, size_t length, const char *word)
{
	size_t n = strlen(word) + 1;

	if (length + n > PAM_WORDS_MAX_BYTES)
		return PAM_WORDS_MAX_BYTES + 1;
	memcpy(words + length, word, n);
	return length + n;
}

/* A socket that is new takes it at once. */
static int say(int fd, const char *user, const char *password, const char *address)
{
	char words[PAM_WORDS_MAX_BYTES] = {0};
	size_t length = put(words, put(words, put(words, 0, user), password), address);
	int r = 0;

	if (length > sizeof(words))
		r = -E2BIG;
	else if (send(fd, words, length, MSG_NOSIGNAL) != (ssize_t)length)
		r = errno ? -errno : -EIO;
	else if (shutdown(fd, SHUT_WR) < 0)
		r = -errno;
	explicit_bzero(words, sizeof(words));
	return r;
}

static int hear(int fd, struct cancel *cancel)
{
	struct pollfd readable = {.fd = fd, .events = POLLIN};
	int r = cancel_poll(cancel, &readable, 1, clock_deadline(PAM_WORDS_MAX_SEC * USEC_PER_SEC));
	char answer = '\0';

	if (r <= 0)
		return r < 0 ? r : -ETIMEDOUT;
	ssize_t n = read(fd, &answer, 1);
	if (n < 0)
		return -errno;
	if (n == 0)
		return -ENODATA;
	return answer == PAM_WORDS_RIGHT ? 1 : answer == PAM_WORDS_WRONG ? 0 : -EBADMSG;
}

int pam_ask(const char *socket_path, const char *user, const char *password, const char *address,
	struct cancel *cancel, struct fault *fault)
{
	int fd CLEANUP_CLOSE = connect_to(socket_path, fault);

	if (fd < 0)
		return fd;
	int r = say(fd, user, password, address);
	if (r == 0)
		r = hear(fd, cancel);
	return r < 0 ? fault_errno(fault, r, "PAM cannot be asked: ferry-pam gave no answer") : r;
}
