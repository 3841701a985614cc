/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/predict.h"

#include "base/cleanup.h"
#include "base/clock.h"

/* Below that a round's time is latency, not bandwidth. */
#define SMALL_BYTES (UINT64_C(1) << 20)
#define SMOOTHING   0.5
/* What any link takes within a pause, as long as nothing is known of it. */
#define FEW_BYTES (UINT64_C(256) << 10)
/* A round is progress if it leaves at least a tenth less than any before. */
#define PROGRESS 0.9
/* A guest that may write less than that can as well be stopped. */
#define LEAST_THROTTLE (UINT64_C(256) << 10)

static double per_second(uint64_t bytes, uint64_t usec)
{
	return (double)bytes * (double)USEC_PER_SEC / (double)MAX(usec, 1);
}

static double smooth(double before, double now)
{
	return before > 0 ? SMOOTHING * now + (1 - SMOOTHING) * before : now;
}

void predict_init(
	struct predict *predict, uint64_t fixed_usec, uint64_t max_pause_usec, double rate)
{
	*predict = (struct predict){
		.fixed_usec = fixed_usec ? fixed_usec : PREDICT_FIXED_USEC,
		.max_pause_usec = max_pause_usec,
		.rate = rate,
		.least_bytes = UINT64_MAX,
	};
}

void predict_add(struct predict *predict, const struct predict_round *round)
{
	predict->n_rounds++;
	if (round->sent_bytes >= SMALL_BYTES)
		predict->rate =
			smooth(predict->rate, per_second(round->sent_bytes, round->busy_usec));
	else if (round->sent_bytes)
		predict->small_usec = predict->small_usec
					      ? MIN(predict->small_usec, round->busy_usec)
					      : round->busy_usec;
	predict->dirty_rate =
		smooth(predict->dirty_rate, per_second(round->left_bytes, round->usec));
	bool nearer = (double)round->left_bytes < PROGRESS * (double)predict->least_bytes;
	predict->least_bytes = MIN(predict->least_bytes, round->left_bytes);
	predict->n_stalled =
		nearer || predict_fits(predict, round->left_bytes) ? 0 : predict->n_stalled + 1;
}

uint64_t predict_pause_usec(const struct predict *predict, uint64_t left_bytes)
{
	if (left_bytes == 0)
		return predict->fixed_usec;
	/* Nothing is known before the first bytes were sent. */
	if (predict->rate <= 0 && !predict->small_usec)
		return UINT64_MAX;
	uint64_t sending =
		predict->rate > 0
			? (uint64_t)((double)left_bytes / predict->rate * (double)USEC_PER_SEC)
			: left_bytes / SMALL_BYTES * predict->small_usec;
	return predict->fixed_usec + MAX(sending, predict->small_usec);
}

bool predict_fits(const struct predict *predict, uint64_t left_bytes)
{
	uint64_t fixed = MIN(predict->fixed_usec, predict->max_pause_usec / 2);

	if (left_bytes == 0)
		return true;
	if (predict->rate <= 0)
		return predict->small_usec && left_bytes <= FEW_BYTES;
	return (double)left_bytes / predict->rate * (double)USEC_PER_SEC <=
	       (double)(predict->max_pause_usec - fixed);
}

bool predict_is_stalled(const struct predict *predict)
{
	return predict->n_stalled >= PREDICT_STALLED_ROUNDS;
}

void predict_forgive(struct predict *predict)
{
	predict->n_stalled = 0;
	predict->least_bytes = UINT64_MAX;
	predict->dirty_rate = 0;
}

uint64_t predict_throttle(const struct predict *predict, unsigned step)
{
	double limit = predict->rate / 2;

	for (unsigned i = 0; i < step; i++)
		limit /= 2;
	return MAX((uint64_t)limit, LEAST_THROTTLE);
}
