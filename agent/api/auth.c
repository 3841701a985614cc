/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/api/auth.h"

#include "agent/api/bell.h"
#include "agent/api/pam_ask.h"
#include "agent/api/passwords.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/uuid.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct login {
	struct login *next;
	struct call *call;
	char *user;
	char *password;
	char *originator;
	bool is_checked;      /* by PAM */
	bool is_right;        /* what it said */
	uint64_t answer_usec; /* when a refused one is answered */
};

struct login_queue {
	struct login *first;
	struct login **tail;
	size_t n;
};

struct auth {
	struct auth_params params;
	char *nobody_hash; /* checked against when there is no such user */
	pthread_t thread;
	int bell;
	struct cancel *ending; /* requested: PAM is not waited for any more */
	pthread_mutex_t lock;  /* guards what follows, up to refused */
	pthread_cond_t change;
	struct login_queue waiting; /* of them those that PAM has checked too */
	struct login_queue for_pam;
	size_t n_pam_threads;
	bool closed;
	struct login_queue refused; /* the thread's own, in order of answer_usec */
};

/* --- Queues ------------------------------------------------------------------------------------
 */

static void queue_init(struct login_queue *queue)
{
	*queue = (struct login_queue){.tail = &queue->first};
}

static void queue_add(struct login_queue *queue, struct login *login)
{
	login->next = NULL;
	*queue->tail = login;
	queue->tail = &login->next;
	queue->n++;
}

static struct login *queue_take(struct login_queue *queue)
{
	struct login *login = queue->first;

	if (!login)
		return NULL;
	queue->first = login->next;
	if (!queue->first)
		queue->tail = &queue->first;
	queue->n--;
	return login;
}

static void login_forget_password(struct login *login)
{
	if (login->password)
		explicit_bzero(login->password, strlen(login->password));
	free(TAKE_PTR(login->password));
}

static struct login *login_free(struct login *login)
{
	if (!login)
		return NULL;
	login_forget_password(login);
	free(login->user);
	free(login->originator);
	free(login);
	return NULL;
}

DEFINE_CLEANUP(struct login *, login_free)

/* --- Checking ----------------------------------------------------------------------------------
 */

/* NULL: there is no such user. */
static char *auth_find_hash(struct auth *auth, const char *user)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	char *hash = NULL;

	if (auth->params.find(auth->params.find_arg, user, &hash, &fault) < 0) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_error("login-no-database", "error=\"%s\"", text);
	}
	return hash;
}

static void login_refuse(struct login *login)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	fault_set(&fault, -EACCES, "SESSION_AUTHENTICATION_FAILED", login->user,
		"The user name or the password is wrong", NULL);
	call_fail(login->call, &fault);
	login_free(login);
}

static void auth_decide(struct auth *auth, struct login *login, bool is_right)
{
	login_forget_password(login);
	if (is_right) {
		auth->params.admit(auth->params.arg, login->call, login->user, login->originator);
		login_free(login);
		return;
	}
	log_warn("login-refused", "user=\"%s\" address=\"%s\"", login->user,
		call_peer_address(login->call));
	login->answer_usec = clock_deadline(auth->params.delay_usec);
	queue_add(&auth->refused, login);
}

static void auth_ask_pam(struct auth *auth, struct login *login);

static void auth_check(struct auth *auth, struct login *login)
{
	char *hash CLEANUP_FREE = auth_find_hash(auth, login->user);

	if (login->is_checked) {
		/* He may have been removed, or given another password, meanwhile. */
		auth_decide(auth, login, login->is_right && password_is_in_pam(hash));
		return;
	}
	if (password_is_in_pam(hash)) {
		auth_ask_pam(auth, login);
		return;
	}
	bool is_right = password_is(login->password, hash ? hash : auth->nobody_hash);
	auth_decide(auth, login, hash && is_right);
}

/* --- PAM ---------------------------------------------------------------------------------------
 */

static struct login *auth_take_for_pam(struct auth *auth)
{
	SCOPE_LOCK(&auth->lock);
	struct login *login = auth->closed ? NULL : queue_take(&auth->for_pam);

	if (!login) {
		auth->n_pam_threads--;
		pthread_cond_broadcast(&auth->change);
	}
	return login;
}

/* Ends when nobody waits for PAM any more. */
static void *pam_main(void *arg)
{
	struct auth *auth = arg;
	struct login *login;

	while ((login = auth_take_for_pam(auth))) {
		struct fault fault CLEANUP_FAULT = FAULT_INIT;
		int r = pam_ask(auth->params.pam_socket, login->user, login->password,
			call_peer_address(login->call), auth->ending, &fault);
		if (r < 0) {
			char *text CLEANUP_FREE = fault_describe(&fault);
			log_error("login-no-pam", "user=\"%s\" error=\"%s\"", login->user, text);
		}
		login_forget_password(login);
		login->is_checked = true;
		login->is_right = r > 0;
		SCOPE_LOCK(&auth->lock);
		queue_add(&auth->waiting, login);
		bell_ring(auth->bell);
	}
	return NULL;
}

static int pam_start_thread(struct auth *auth)
{
	sigset_t all, before;
	pthread_attr_t attributes;
	pthread_t thread;

	sigfillset(&all);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = -pthread_create(&thread, &attributes, pam_main, auth);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return r;
}

/* false: it could not be asked. */
static bool auth_enqueue_for_pam(struct auth *auth, struct login *login)
{
	SCOPE_LOCK(&auth->lock);
	if (auth->closed || auth->for_pam.n >= AUTH_MAX_WAITING)
		return false;
	if (auth->n_pam_threads < AUTH_MAX_PAM_THREADS && pam_start_thread(auth) == 0)
		auth->n_pam_threads++;
	if (!auth->n_pam_threads)
		return false;
	queue_add(&auth->for_pam, login);
	return true;
}

static void auth_ask_pam(struct auth *auth, struct login *login)
{
	if (auth_enqueue_for_pam(auth, login))
		return;
	log_error(
		"login-no-pam", "user=\"%s\" error=\"too many logins wait for PAM\"", login->user);
	auth_decide(auth, login, false);
}

/* --- The thread --------------------------------------------------------------------------------
 */

static struct login *auth_take_waiting(struct auth *auth, bool *ret_closed)
{
	SCOPE_LOCK(&auth->lock);
	*ret_closed = auth->closed;
	return queue_take(&auth->waiting);
}

/* Answers the refused whose time has come; returns when the next one's does. */
static uint64_t auth_answer_refused(struct auth *auth)
{
	while (auth->refused.first && auth->refused.first->answer_usec <= clock_now_usec())
		login_refuse(queue_take(&auth->refused));
	return auth->refused.first ? auth->refused.first->answer_usec : USEC_FOREVER;
}

static void refuse_all(struct login_queue *queue)
{
	struct login *login;

	while ((login = queue_take(queue)))
		login_refuse(login);
}

static void *auth_main(void *arg)
{
	struct auth *auth = arg;

	for (;;) {
		bool closed;
		struct login *login = auth_take_waiting(auth, &closed);
		if (login && !closed) {
			auth_check(auth, login);
			auth_answer_refused(auth);
			continue;
		}
		if (closed) {
			if (login)
				login_refuse(login);
			return NULL;
		}
		bell_wait(auth->bell, auth_answer_refused(auth));
	}
}

static int auth_enqueue(struct auth *auth, struct login *login)
{
	SCOPE_LOCK(&auth->lock);
	if (auth->closed)
		return -ESHUTDOWN;
	if (auth->waiting.n >= AUTH_MAX_WAITING)
		return -EBUSY;
	queue_add(&auth->waiting, login);
	return 0;
}

int auth_submit(struct auth *auth, struct call *call, const char *user, const char *password,
	const char *originator, struct fault *fault)
{
	struct login *login CLEANUP(cleanup_login_free) = xcalloc(1, sizeof(*login));
	int r;

	login->call = call;
	login->user = xstrdup(user);
	login->password = xstrdup(password);
	login->originator = xstrdup(originator);
	r = auth_enqueue(auth, login);
	if (r == -ESHUTDOWN)
		return fault_text(fault, r, "This host's agent is stopping; log in again later");
	if (r < 0)
		return fault_text(fault, r,
			"%d logins are waiting to be checked already; log in again later",
			AUTH_MAX_WAITING);
	(void)TAKE_PTR(login);
	bell_ring(auth->bell);
	return 0;
}

/* --- Life ---------------------------------------------------------------------------------------
 */

/* A hash of no password that anybody knows, at the cost that users' hashes have. */
static int auth_hash_nobody(struct auth *auth, struct fault *fault)
{
	char *password CLEANUP_FREE = secret_new(32);

	return password_hash(password, &auth->nobody_hash, fault);
}

int auth_new(const struct auth_params *params, struct auth **ret_auth, struct fault *fault)
{
	struct auth *auth = xcalloc(1, sizeof(*auth));
	int r;

	auth->params = *params;
	queue_init(&auth->waiting);
	queue_init(&auth->for_pam);
	queue_init(&auth->refused);
	auth->ending = cancel_new();
	pthread_mutex_init(&auth->lock, NULL);
	pthread_cond_init(&auth->change, NULL);
	auth->bell = bell_new();
	r = auth_hash_nobody(auth, fault);
	if (r < 0) {
		auth->closed = true;
		auth_free(auth);
		return r;
	}
	r = pthread_create(&auth->thread, NULL, auth_main, auth);
	if (r != 0) {
		auth->closed = true;
		auth_free(auth);
		return fault_errno(fault, -r, "Cannot start the thread that checks passwords");
	}
	*ret_auth = auth;
	return 0;
}

void auth_close(struct auth *auth)
{
	bool was_closed;

	pthread_mutex_lock(&auth->lock);
	was_closed = auth->closed;
	auth->closed = true;
	cancel_request(auth->ending, "the agent is stopping");
	while (auth->n_pam_threads)
		pthread_cond_wait(&auth->change, &auth->lock);
	pthread_mutex_unlock(&auth->lock);
	if (was_closed)
		return;
	bell_ring(auth->bell);
	pthread_join(auth->thread, NULL);
	refuse_all(&auth->waiting);
	refuse_all(&auth->for_pam);
	refuse_all(&auth->refused);
}

struct auth *auth_free(struct auth *auth)
{
	if (!auth)
		return NULL;
	auth_close(auth);
	close(auth->bell);
	cancel_free(auth->ending);
	pthread_cond_destroy(&auth->change);
	pthread_mutex_destroy(&auth->lock);
	free(auth->nobody_hash);
	free(auth);
	return NULL;
}
