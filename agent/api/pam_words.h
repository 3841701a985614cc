/* SPDX-License-Identifier: Apache-2.0 */
/* What ferryd and ferry-pam say to each other over a stream socket.
 *
 * ferryd: the user's name, the password, the client's address, each with its NUL. ferry-pam: one
 * byte, and the end. No byte: it could not ask. */
#ifndef FERRY_AGENT_API_PAM_WORDS_H
#define FERRY_AGENT_API_PAM_WORDS_H

#define PAM_WORDS_SERVICE   "ferry" /* /etc/pam.d/ferry */
#define PAM_WORDS_MAX_BYTES 1024
#define PAM_WORDS_RIGHT     'Y'
#define PAM_WORDS_WRONG     'N'
#define PAM_WORDS_MAX_SEC   30 /* for all of it */

#endif
