/* SPDX-License-Identifier: Apache-2.0 */
/* Scope-bound ownership: every local that owns something says so in its declaration. */
#ifndef FERRY_BASE_CLEANUP_H
#define FERRY_BASE_CLEANUP_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(function) __attribute__((cleanup(function)))

/* Defines cleanup_<name>() for use with CLEANUP(): calls free_function(*p).
 * NOLINTBEGIN(bugprone-macro-parentheses): a type is not put in parentheses. */
#define DEFINE_CLEANUP(type, free_function)                                                        \
	static inline void cleanup_##free_function(type *p)                                        \
	{                                                                                          \
		if (*p)                                                                            \
			free_function(*p);                                                         \
	}

/* NOLINTEND(bugprone-macro-parentheses) */

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_fclose(FILE **file)
{
	if (*file)
		fclose(*file);
}

static inline void cleanup_unlock(pthread_mutex_t **mutex)
{
	if (*mutex)
		pthread_mutex_unlock(*mutex);
}

#define CLEANUP_FREE   CLEANUP(cleanup_free)
#define CLEANUP_CLOSE  CLEANUP(cleanup_close)
#define CLEANUP_FCLOSE CLEANUP(cleanup_fclose)

/* Gives a value away and leaves the local empty, so that its cleanup does nothing. */
#define TAKE_PTR(p)                                                                                \
	({                                                                                         \
		__typeof__(p) take_ptr_ = (p);                                                     \
		(p) = NULL;                                                                        \
		take_ptr_;                                                                         \
	})
#define TAKE_FD(fd)                                                                                \
	({                                                                                         \
		int take_fd_ = (fd);                                                               \
		(fd) = -1;                                                                         \
		take_fd_;                                                                          \
	})

static inline pthread_mutex_t *lock_taken_(pthread_mutex_t *mutex)
{
	pthread_mutex_lock(mutex);
	return mutex;
}

#define LOCK_NAME2_(line) scope_lock_##line
#define LOCK_NAME_(line)  LOCK_NAME2_(line)
/* Holds the mutex until the end of the enclosing scope. Nothing that blocks on I/O is called
 * while a lock is held. */
#define SCOPE_LOCK(mutex)                                                                          \
	pthread_mutex_t *LOCK_NAME_(__LINE__) CLEANUP(cleanup_unlock) = lock_taken_(mutex);        \
	(void)LOCK_NAME_(__LINE__)

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))

#endif
