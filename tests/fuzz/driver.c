/* SPDX-License-Identifier: Apache-2.0 */
/* main() for fuzz targets built without libFuzzer: replays a folder of inputs, then seeded random
 * mutations of them until the count or the seconds are used up.
 * Usage: fuzz_x FOLDER [MUTATIONS [SECONDS [SEED]]] */
#include "base/buf.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/parse.h"
#include "tests/lib/random_value.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define MAX_INPUTS    256
#define MAX_FILE_SIZE ((size_t)1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct corpus {
	struct buf inputs[MAX_INPUTS];
	size_t n;
};

static void run_one(const struct buf *input)
{
	/* A copy of the exact size: reading beyond it is seen by AddressSanitizer. */
	uint8_t *copy = malloc(input->length ? input->length : 1);

	if (!copy)
		abort();
	if (input->length)
		memcpy(copy, input->data, input->length);
	LLVMFuzzerTestOneInput(copy, input->length);
	free(copy);
}

static int read_corpus(const char *folder, struct corpus *corpus)
{
	DIR *dir = opendir(folder);
	const struct dirent *entry;

	if (!dir)
		return -1;
	while ((entry = readdir(dir)) && corpus->n < MAX_INPUTS) {
		char path[4096];
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		if (io_read_file(path, MAX_FILE_SIZE, &corpus->inputs[corpus->n]) == 0)
			corpus->n++;
	}
	closedir(dir);
	return corpus->n ? 0 : -1;
}

/* Where to cut or paste: mostly beside a character that means something. */
static size_t random_place(const struct buf *input, uint64_t *random)
{
	size_t at = random_below(random, input->length + 1);

	if (random_below(random, 4) == 0)
		return at;
	while (at < input->length && !strchr("<>/&\"{}[],:", input->data[at]))
		at++;
	return at;
}

static void mutate(const struct corpus *corpus, uint64_t *random, struct buf *out)
{
	const struct buf *base = &corpus->inputs[random_below(random, corpus->n)];
	const struct buf *other = &corpus->inputs[random_below(random, corpus->n)];
	size_t keep = random_place(base, random);
	size_t skip = random_below(random, 3) ? keep : random_place(base, random);
	size_t from = random_place(other, random);
	size_t length = random_below(random, MIN(other->length - from, (size_t)64) + 1);

	buf_append(out, base->data, keep);
	for (size_t n = random_below(random, 8) ? 1 : random_below(random, 200); n; n--)
		buf_append(out, other->data + from, length);
	buf_append(out, base->data + skip, base->length - skip);
	for (size_t n = random_below(random, 4); n && out->length; n--)
		out->data[random_below(random, out->length)] = (char)random_next(random);
}

static uint64_t argument(int argc, char **argv, int i, uint64_t fallback)
{
	uint64_t value = fallback;

	if (i < argc && parse_uint64(argv[i], &value) < 0)
		fprintf(stderr, "%s: \"%s\" is no number\n", argv[0], argv[i]);
	return value;
}

int main(int argc, char **argv)
{
	static struct corpus corpus;
	uint64_t n_mutations = argument(argc, argv, 2, 100000);
	uint64_t deadline = clock_deadline(argument(argc, argv, 3, 10) * USEC_PER_SEC);
	uint64_t seed = argument(argc, argv, 4, 1);
	uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	uint64_t n = 0;

	if (argc < 2 || read_corpus(argv[1], &corpus) < 0) {
		fprintf(stderr, "usage: %s FOLDER [MUTATIONS [SECONDS [SEED]]]\n", argv[0]);
		return 2;
	}
	for (size_t i = 0; i < corpus.n; i++)
		run_one(&corpus.inputs[i]);
	for (; n < n_mutations && clock_now_usec() < deadline; n++) {
		struct buf input CLEANUP_BUF = BUF_INIT;
		mutate(&corpus, &random, &input);
		run_one(&input);
	}
	printf("%zu inputs and %llu mutations (seed %llu) without a fault\n", corpus.n,
		(unsigned long long)n, (unsigned long long)seed);
	for (size_t i = 0; i < corpus.n; i++)
		buf_free(&corpus.inputs[i]);
	return 0;
}
