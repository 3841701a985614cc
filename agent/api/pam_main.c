/* SPDX-License-Identifier: Apache-2.0 */
/* ferry-pam: asks the host's PAM whether a password is right, for ferryd, which has no right to:
 * passwords of other users can only be checked by root. systemd starts one for each login, with the
 * socket as its standard input and output (ferry-pam.socket, which only ferryd's user may open). */
#include "agent/api/pam_words.h"

#include <security/pam_appl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

struct request {
	char text[PAM_WORDS_MAX_BYTES];
	const char *user;
	const char *password;
	const char *address;
};

/* Three texts and nothing behind them. */
static bool split(struct request *request, size_t length)
{
	const char *end = request->text + length;
	const char **words[] = {&request->user, &request->password, &request->address};
	const char *at = request->text;

	for (size_t i = 0; i < 3; i++) {
		const char *nul = memchr(at, '\0', (size_t)(end - at));
		if (!nul)
			return false;
		*words[i] = at;
		at = nul + 1;
	}
	return at == end;
}

static bool read_request(struct request *request)
{
	size_t length = 0;

	while (length < sizeof(request->text)) {
		ssize_t n =
			read(STDIN_FILENO, request->text + length, sizeof(request->text) - length);
		if (n < 0)
			return false;
		if (n == 0)
			break;
		length += (size_t)n;
	}
	return split(request, length);
}

static void free_answers(struct pam_response *answers, int n)
{
	for (int i = 0; i < n; i++) {
		if (answers[i].resp)
			explicit_bzero(answers[i].resp, strlen(answers[i].resp));
		free(answers[i].resp);
	}
	free(answers);
}

/* pam_conv(3): nobody sits there, so there is one answer to each kind of question. */
static int converse(
	int n, const struct pam_message **messages, struct pam_response **ret_answers, void *arg)
{
	const struct request *request = arg;

	if (n <= 0 || n > PAM_MAX_NUM_MSG)
		return PAM_CONV_ERR;
	struct pam_response *answers = calloc((size_t)n, sizeof(*answers));
	if (!answers)
		return PAM_BUF_ERR;
	for (int i = 0; i < n; i++) {
		int style = messages[i]->msg_style;
		const char *text = style == PAM_PROMPT_ECHO_OFF  ? request->password
				   : style == PAM_PROMPT_ECHO_ON ? request->user
								 : NULL;
		if (!text)
			continue;
		answers[i].resp = strdup(text);
		if (!answers[i].resp) {
			free_answers(answers, n);
			return PAM_BUF_ERR;
		}
	}
	*ret_answers = answers;
	return PAM_SUCCESS;
}

/* ferryd answers a refusal late itself. */
static void no_delay(int result, unsigned usec, void *arg)
{
	(void)result, (void)usec, (void)arg;
}

/* A module may take the login for that of another user. */
static int check_user(pam_handle_t *pam, const struct request *request)
{
	const void *user = NULL;
	int r = pam_get_item(pam, PAM_USER, &user);

	if (r != PAM_SUCCESS)
		return r;
	return user && strcmp(user, request->user) == 0 ? PAM_SUCCESS : PAM_USER_UNKNOWN;
}

static int check(pam_handle_t *pam, const struct request *request)
{
	void (*delay)(int, unsigned, void *) = no_delay;
	int r = pam_set_item(pam, PAM_FAIL_DELAY, (const void *)delay);

	if (r == PAM_SUCCESS)
		r = pam_set_item(pam, PAM_RHOST, request->address);
	if (r == PAM_SUCCESS)
		r = pam_authenticate(pam, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
	if (r == PAM_SUCCESS)
		r = check_user(pam, request);
	/* Also PAM_NEW_AUTHTOK_REQD: a password that is over is not right. */
	return r == PAM_SUCCESS ? pam_acct_mgmt(pam, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK) : r;
}

static int ask(struct request *request)
{
	const struct pam_conv conversation = {.conv = converse, .appdata_ptr = request};
	pam_handle_t *pam = NULL;
	int r = pam_start(PAM_WORDS_SERVICE, request->user, &conversation, &pam);

	if (r == PAM_SUCCESS)
		r = check(pam, request);
	if (r != PAM_SUCCESS)
		syslog(LOG_NOTICE, "user=\"%s\" address=\"%s\": %s", request->user,
			request->address, pam_strerror(pam, r));
	pam_end(pam, r);
	return r;
}

int main(void)
{
	struct request request = {0};

	alarm(PAM_WORDS_MAX_SEC);
	openlog("ferry-pam", LOG_PID, LOG_AUTHPRIV);
	if (!read_request(&request))
		return EXIT_FAILURE;
	char answer = ask(&request) == PAM_SUCCESS ? PAM_WORDS_RIGHT : PAM_WORDS_WRONG;
	explicit_bzero(&request, sizeof(request));
	return write(STDOUT_FILENO, &answer, 1) == 1 ? EXIT_SUCCESS : EXIT_FAILURE;
}
