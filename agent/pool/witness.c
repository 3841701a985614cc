/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/pool/witness.h"

#include "agent/pool/replica.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

struct witness {
	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t change;
	struct link *link;     /* of a member */
	const char *state_dir; /* of a member */
	struct roster *roster; /* of the coordinator */
	struct cancel *known;  /* requested: which of the two it is */
	struct cancel *ending; /* requested: the roster goes */
	size_t n_asked;        /* threads */
};

struct witness *witness_new(void)
{
	struct witness *witness = xcalloc(1, sizeof(*witness));

	pthread_mutex_init(&witness->lock, NULL);
	pthread_cond_init(&witness->change, NULL);
	witness->known = cancel_new();
	witness->ending = cancel_new();
	return witness;
}

struct witness *witness_free(struct witness *witness)
{
	if (!witness)
		return NULL;
	witness_of_coordinator(witness, NULL);
	cancel_free(witness->known);
	cancel_free(witness->ending);
	pthread_cond_destroy(&witness->change);
	pthread_mutex_destroy(&witness->lock);
	free(witness);
	return NULL;
}

void witness_of_member(struct witness *witness, struct link *link, const char *state_dir)
{
	SCOPE_LOCK(&witness->lock);
	witness->link = link;
	witness->state_dir = state_dir;
	cancel_request(witness->known, "a member");
}

void witness_of_coordinator(struct witness *witness, struct roster *roster)
{
	SCOPE_LOCK(&witness->lock);
	witness->roster = roster;
	cancel_request(witness->known, "the coordinator");
	if (roster)
		return;
	cancel_request(witness->ending, "the agent is stopping");
	while (witness->n_asked)
		pthread_cond_wait(&witness->change, &witness->lock);
}

/* --- The coordinator asks its members ----------------------------------------------------------
 */

/* Owned by who asks and by the threads, one for each host, whoever is last. */
struct round {
	struct witness *witness;
	uint64_t deadline_usec;
	struct cancel *told;  /* requested: there is an answer, or none will come */
	pthread_mutex_t lock; /* guards the rest */
	size_t n_refs;
	size_t n_left;
	bool is_held;
	bool is_overruled;
	struct fault fault; /* of the last that failed */
};

struct question {
	struct round *round;
	struct link *link;
};

static void round_unref(struct round *round)
{
	pthread_mutex_lock(&round->lock);
	bool is_last = --round->n_refs == 0;
	pthread_mutex_unlock(&round->lock);
	if (!is_last)
		return;
	cancel_free(round->told);
	fault_clear(&round->fault);
	pthread_mutex_destroy(&round->lock);
	free(round);
}

DEFINE_CLEANUP(struct round *, round_unref)

static void note_answer(struct round *round, int r, struct fault *fault)
{
	SCOPE_LOCK(&round->lock);
	round->n_left--;
	if (r == 0)
		round->is_held = true;
	else if (fault_is(fault, "FERRY_OVERRULED"))
		round->is_overruled = true;
	if (r < 0)
		fault_move(&round->fault, fault);
	if (r == 0 || round->is_overruled || round->n_left == 0)
		cancel_request(round->told, "answered");
}

static void *ask_main(void *arg)
{
	struct question *question = arg;
	struct round *round = question->round;
	struct witness *witness = round->witness;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *result CLEANUP_VALUE = NULL;
	uint64_t now = clock_now_usec();
	int r = link_call(question->link, "copy_now", NULL,
		round->deadline_usec > now ? round->deadline_usec - now : 0, witness->ending,
		&result, &fault);

	note_answer(round, r, &fault);
	round_unref(round);
	free(question);
	SCOPE_LOCK(&witness->lock);
	witness->n_asked--;
	pthread_cond_broadcast(&witness->change);
	return NULL;
}

static int start_thread(struct question *question)
{
	sigset_t all, before;
	pthread_attr_t attributes;
	pthread_t thread;

	sigfillset(&all);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = -pthread_create(&thread, &attributes, ask_main, question);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return r;
}

/* With the witness's lock held. */
static void ask_one(struct round *round, struct link *link)
{
	struct question *question = xcalloc(1, sizeof(*question));
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	*question = (struct question){.round = round, .link = link};
	pthread_mutex_lock(&round->lock);
	round->n_refs++;
	pthread_mutex_unlock(&round->lock);
	round->witness->n_asked++;
	int r = start_thread(question);
	if (r == 0)
		return;
	fault_errno(&fault, r, "cannot start a thread that asks a host");
	note_answer(round, r, &fault);
	round_unref(round);
	round->witness->n_asked--;
	free(question);
}

static int begin(struct witness *witness, struct round *round, struct fault *fault)
{
	SCOPE_LOCK(&witness->lock);
	struct link **links CLEANUP_FREE = NULL;

	if (!witness->roster)
		return fault_text(fault, -ESHUTDOWN, "this agent is stopping");
	if (roster_is_alone(witness->roster))
		return 0;
	round->n_left = roster_live(witness->roster, &links);
	if (round->n_left == 0)
		return fault_text(
			fault, -EHOSTDOWN, "no other host of the pool has been heard of lately");
	for (size_t i = 0, n = round->n_left; i < n; i++)
		ask_one(round, links[i]);
	return 1;
}

static int outcome(struct round *round, struct fault *fault)
{
	SCOPE_LOCK(&round->lock);

	/* Whoever else has it: it is the database of no pool any more. */
	if (round->is_overruled) {
		fault_move(fault, &round->fault);
		return -ESTALE;
	}
	if (round->is_held)
		return 1;
	if (round->n_left)
		return fault_text(fault, -ETIMEDOUT,
			"no other host of the pool has answered within %d s",
			(int)(WITNESS_USEC / USEC_PER_SEC));
	char *text CLEANUP_FREE = fault_describe(&round->fault);
	return fault_text(fault, -EHOSTDOWN, "no other host of the pool has a copy: %s", text);
}

static int ask_members(
	struct witness *witness, uint64_t deadline_usec, struct cancel *cancel, struct fault *fault)
{
	struct round *round CLEANUP(cleanup_round_unref) = xcalloc(1, sizeof(*round));

	*round = (struct round){.witness = witness,
		.deadline_usec = deadline_usec,
		.told = cancel_new(),
		.n_refs = 1,
		.fault = FAULT_INIT};
	pthread_mutex_init(&round->lock, NULL);
	struct pollfd told = {.fd = cancel_fd(round->told), .events = POLLIN};
	int r = begin(witness, round, fault);
	if (r <= 0)
		return r;
	r = cancel_poll(cancel, &told, 1, deadline_usec);
	return r < 0 ? fault_errno(fault, r, "waiting for another host of the pool")
		     : outcome(round, fault);
}

/* --- Both ---------------------------------------------------------------------------------------
 */

int witness_ask(struct witness *witness, struct cancel *cancel, struct fault *fault)
{
	const uint64_t deadline = clock_deadline(WITNESS_USEC);
	struct pollfd known = {.fd = cancel_fd(witness->known), .events = POLLIN};
	int r = cancel_poll(cancel, &known, 1, deadline);

	if (r <= 0)
		return fault_errno(fault, r < 0 ? r : -ETIMEDOUT, "this agent is starting");
	pthread_mutex_lock(&witness->lock);
	struct link *link = witness->link;
	const char *state_dir = witness->state_dir;
	pthread_mutex_unlock(&witness->lock);
	if (!link)
		return ask_members(witness, deadline, cancel, fault);
	r = replica_fetch(link, state_dir, WITNESS_USEC, cancel, fault);
	return r < 0 ? r : 1;
}
