/* SPDX-License-Identifier: Apache-2.0 */
/* SQLite's results as ours: an errno, and a text that says what to do. */
#include "schema/db_sqlite.h"

#include "base/log.h"

#include <errno.h>
#include <sqlite3.h>
#include <string.h>

struct cause {
	int code; /* primary result code of SQLite */
	int error;
	const char *advice;
};

static const struct cause causes[] = {
	{SQLITE_FULL, -ENOSPC,
		"; nothing was changed: free space on its file system and try again"},
	{SQLITE_READONLY, -EROFS,
		"; check who owns the file and its folder, and how the file system is mounted"},
	{SQLITE_PERM, -EACCES, "; check who owns the file and its folder"},
	{SQLITE_CANTOPEN, -EACCES, "; check that the folder exists and who owns it"},
	{SQLITE_CORRUPT, -EBADMSG,
		"; the file is damaged: stop the daemon, keep a copy, and restore a backup or try "
		"sqlite3's .recover"},
	{SQLITE_NOTADB, -EBADMSG, "; this file is something else: check the configured path"},
	{SQLITE_BUSY, -EBUSY, "; another program has held it for too long: see who has it open"},
	{SQLITE_LOCKED, -EBUSY, ""},
	{SQLITE_IOERR, -EIO, "; the disk below it failed: see the kernel's log"},
	{SQLITE_CONSTRAINT, -EEXIST, ""},
	{SQLITE_NOMEM, -ENOMEM, ""},
	{SQLITE_TOOBIG, -EFBIG, ""},
};

/* Once, until something could be stored again: whatever is refused meanwhile says so by itself. */
static void note_trouble(struct sqlite_db *db, int error, const char *text)
{
	bool is_of_the_disk = error == -ENOSPC || error == -EROFS || error == -EIO;

	if (!is_of_the_disk || db->is_unwritable)
		return;
	db->is_unwritable = true;
	log_error("DB_UNWRITABLE",
		"path=%s error=\"%s\"; new work is refused; guests run on, and a move whose state "
		"cannot be stored waits",
		db->base.path, text);
}

int db_error(struct sqlite_db *db, struct fault *fault, const char *doing)
{
	int extended = sqlite3_extended_errcode(db->handle);
	const char *text = sqlite3_errmsg(db->handle);
	int system = sqlite3_system_errno(db->handle);
	bool tell_system = system && ((extended & 0xff) == SQLITE_IOERR ||
					     (extended & 0xff) == SQLITE_CANTOPEN);

	for (size_t i = 0; i < ARRAY_SIZE(causes); i++) {
		if (causes[i].code != (extended & 0xff))
			continue;
		note_trouble(db, causes[i].error, tell_system ? strerror(system) : text);
		return fault_text(fault, causes[i].error, "database %s: %s: %s%s%s%s",
			db->base.path, doing, text, tell_system ? ": " : "",
			tell_system ? strerror(system) : "", causes[i].advice);
	}
	return fault_text(fault, -EIO, "database %s: %s: %s (SQLite code %d)", db->base.path, doing,
		text, extended);
}

int db_error_like(struct sqlite_db *db, int error, const char *doing, struct fault *fault)
{
	const char *advice = "";

	for (size_t i = 0; i < ARRAY_SIZE(causes) && !*advice; i++)
		if (causes[i].error == error)
			advice = causes[i].advice;
	note_trouble(db, error, strerror(-error));
	return fault_errno(fault, error, "database %s: %s%s", db->base.path, doing, advice);
}
