/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes from a QEMU's monitor, in pieces of any size: messages that are whole, or a fault after
 * which there is nothing more. The pieces do not matter: the same bytes give the same messages. */
#include "agent/guest/qmp_reader.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_message(const struct qmp_message *message)
{
	if (!message->id)
		abort();
	switch (message->kind) {
	case QMP_GREETING:
	case QMP_RETURN:
		if (!message->body)
			abort();
		break;
	case QMP_ERROR:
		if (!message->name || !message->text)
			abort();
		break;
	case QMP_EVENT:
		if (!message->name || !message->body || message->body->type != VALUE_STRUCT)
			abort();
		break;
	case QMP_OTHER:
		break;
	}
}

/* Number of messages before the end or the first fault. */
static size_t read_all(const uint8_t *data, size_t size, size_t piece)
{
	struct qmp_reader reader = {0};
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	size_t n = 0;
	int r = 0;

	for (size_t at = 0; at < size && r >= 0; at += piece) {
		r = qmp_reader_feed(&reader, data + at, MIN(piece, size - at), &fault);
		while (r >= 0) {
			struct qmp_message message CLEANUP_QMP_MESSAGE = QMP_MESSAGE_INIT;
			r = qmp_reader_next(&reader, &message, &fault);
			if (r <= 0)
				break;
			check_message(&message);
			n++;
		}
	}
	if (r < 0 && (!fault.code || fault.n_params == 0))
		abort();
	qmp_reader_clear(&reader);
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t whole = read_all(data, size, size ? size : 1);

	if (read_all(data, size, 7) != whole)
		abort();
	return 0;
}
