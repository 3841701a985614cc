/* SPDX-License-Identifier: Apache-2.0 */
/* Asks the host's PAM whether a password is right, through ferry-pam (pam_main.c). */
#ifndef FERRY_AGENT_API_PAM_ASK_H
#define FERRY_AGENT_API_PAM_ASK_H

#include "base/cancel.h"
#include "base/fault.h"

/* 1: right, and the user may log in; 0: not. Negative: PAM could not be asked, with a fault that
 * says why. Blocks for PAM_WORDS_MAX_SEC at most. */
int pam_ask(const char *socket_path, const char *user, const char *password, const char *address,
	struct cancel *cancel, struct fault *fault);

#endif
