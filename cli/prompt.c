/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/prompt.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "cli/errors.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <termios.h>

#define MAX_ANSWER 1024

static int read_answer(int tty, struct cancel *cancel, char *answer, struct fault *fault)
{
	struct pollfd fd = {.fd = tty, .events = POLLIN};
	int r = cancel_poll(cancel, &fd, 1, USEC_FOREVER);

	if (r < 0)
		return cli_fail(fault, r, "interrupted");
	/* In the terminal's line mode one read is one line. */
	ssize_t n = read(tty, answer, MAX_ANSWER - 1);
	if (n < 0)
		return cli_fail(fault, -errno, "reading from the terminal: %s", strerror(errno));
	while (n && strchr("\r\n", answer[n - 1]))
		n--;
	answer[n] = '\0';
	return 0;
}

int prompt_ask(const char *question, enum prompt_echo echo, struct cancel *cancel,
	char **ret_answer, struct fault *fault)
{
	int tty CLEANUP_CLOSE = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	struct termios before;
	char answer[MAX_ANSWER];

	if (tty < 0 || tcgetattr(tty, &before) < 0)
		return cli_fail(fault, -ENXIO, "there is no terminal to ask \"%s\" on", question);
	struct termios during = before;
	if (echo == PROMPT_HIDDEN)
		during.c_lflag &= ~(tcflag_t)ECHO;
	tcsetattr(tty, TCSAFLUSH, &during);
	(void)io_write_full(tty, question, strlen(question));
	int r = read_answer(tty, cancel, answer, fault);
	tcsetattr(tty, TCSAFLUSH, &before);
	if (echo == PROMPT_HIDDEN)
		(void)io_write_full(tty, "\n", 1);
	if (r == 0)
		*ret_answer = xstrdup(answer);
	explicit_bzero(answer, sizeof(answer));
	return r;
}
