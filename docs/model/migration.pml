/* SPDX-License-Identifier: Apache-2.0 */
/* A migration, for spin. docs/model/README.md says what is in here and what is not.
 *
 * The sender and the receiver follow agent/migrate/sender.c and receiver*.c function by function.
 * Their stored states (agent.db) are sdb and rdb, the decision in the destination's pool.db is dec.
 * A row of agent/migrate/fsm.c is one S_POST or R_POST, each written once: a test compares them.
 * What one process does without anybody seeing the steps is one atomic step here; between two
 * things that are stored, or that another process sees, there is always a place to die.
 *
 * -DHALTED    a halted VM; else its guest runs
 * -DMAX_LATE=n so many requests at once are on their way that were given up or come twice; by
 *              default one of every kind
 * -DFAULTS=sum what fails beside agents and network: 1 states that cannot be stored, 2 a cancel at
 *              the destination, 4 QEMU at the source, 8 QEMU at the destination, 16 the watchdog;
 *              by default all
 * -DRESOLVE=n  an operator says what was decided about a sender in COMMITTING: 1 what is true (that it
 *              is aborted only once the destination has stored so); 2 also, wrongly, that it is
 *              aborted; 3 also, wrongly, that it is committed; by default nothing
 * -DONLY=n     one law alone, by its number in the README
 * -DMUTATION=n a law is broken on purpose, which spin must find; tests/model/check.py names them
 */
#ifndef MUTATION
#define MUTATION 0
#endif
#ifdef HALTED
#define LIVE false
#else
#define LIVE true
#endif

/* States of both roles, as in schema/types.h. ABSENT: the receiver has no row of the migration. */
mtype:state = { ABSENT, NEW, PREPARING, ALLOCATING, COPYING, RECEIVING, CONVERGING, SWITCHING,
	SEALED, HANDOVER, COMMITTING, COMMITTED, FINISHING, ABORTING, DONE, CANCELLED, FAILED }
mtype:decision = { UNDECIDED, COMMIT, ABORT }
/* What the move of the guest's memory is in QEMU at the source. ENDED: cancelled or failed. GONE:
 * QEMU has ended. */
mtype:move = { NONE, ACTIVE, PRE_SWITCHOVER, DEVICE, COMPLETED, ENDED, GONE }
/* QEMU at the destination. LOADED: it has all of the guest and is paused (-S). */
mtype:there = { NO_QEMU, WAITING, LOADED, RUNS, DEAD }
/* What a call came back with. REFUSED: a fault, which decides nothing. */
mtype:word = { SILENCE, OK, REFUSED, IS_COMMITTED, IS_ABORTED }
/* The watchdog. ACTING: it has decided to; the agent's end or the budget was the cause. */
mtype:dog = { NO_DOG, ARMED, ACTING, KILLED }

#define IS_BROKEN(number) (MUTATION == number)
#ifndef ONLY
#define ONLY 0
#endif
#define IS_LAW(number) (ONLY == 0 || ONLY == number)
#define LAW(number, holds) assert(!IS_LAW(number) || (holds))
#ifndef RESOLVE
#define RESOLVE 0
#endif
#ifndef MAX_LATE
#define MAX_LATE 7
#endif
#ifndef FAULTS
#define FAULTS 31
#endif
#define HAS_FAULT(number) ((FAULTS / number) % 2 == 1)

#define PREPARE 0
#define RENEW 1
#define INCOMING 2
#define SEAL 3
#define COMMIT_CALL 4
#define ABORT_CALL 5
#define FINISH 6
#define NOTHING 7

/* --- What is stored ----------------------------------------------------------------------------*/
mtype:state sdb = NEW;
mtype:state rdb = ABSENT;
mtype:decision dec = UNDECIDED;
bool cancel_asked;       /* at the source */
bool cancel_asked_there; /* at the destination */
bool has_disks_there;
/* What an operator said about a sender in doubt, and whether that was acted upon. */
mtype:word said = SILENCE;
bool is_assumed;

/* --- What runs ---------------------------------------------------------------------------------*/
mtype:move q_move = (LIVE -> NONE : GONE);
bool q_runs = LIVE; /* the guest at the source */
mtype:there there = NO_QEMU;
bool stream;    /* of memory, through both agents */
bool at_switch; /* live->at_switch: this run of the agent stopped the guest */
bool exports;   /* tgtd has the disks */
mtype:dog dog = NO_DOG;
bool is_disarmed; /* by the agent, which is about to let QEMU go on */

/* Bytes that the destination's disks lack: those that the log or a bitmap names. A guest that runs
 * is taken to write all the time. */
bool is_dirty = true;

/* --- The network -------------------------------------------------------------------------------*/
bool net[7]; /* requests on their way; one that comes twice stays */
byte asked = NOTHING; /* what the sender waits for */
byte verb = NOTHING;  /* what the receiver works on */
mtype:word answer = SILENCE;

/* From here on nothing fails and nobody interferes: what was begun must come to its end. */
bool calm;
/* Stored by the sender: the destination may have been asked to seal, and must be told of an abort. */
bool may_be_sealed;

chan s_dies = [0] of { bit };
chan r_dies = [0] of { bit };

#define IS_FINAL(state) (state == DONE || state == CANCELLED || state == FAILED)
#define Q_LIVES (q_move != GONE)
#define QEMU_THERE_LIVES (there == WAITING || there == LOADED || there == RUNS)

/* --- Rows of the table -------------------------------------------------------------------------*/

/* sender_run: a state that cannot be stored is worked on again. */
#define S_POST(from, event, to)                                                                    \
	if                                                                                         \
	:: assert(sdb == from); sdb = to                                                           \
	:: HAS_FAULT(1) && !calm -> skip                                                           \
	fi;                                                                                        \
	goto again
#define R_POST(from, event, to) assert(rdb == from); rdb = to

/* --- Sender's helpers --------------------------------------------------------------------------*/

#define SEND(call) atomic { net[call] = true; asked = call; answer = SILENCE }
/* The deadline of a call; once it is calm, only when the request or its answer was lost. */
#define IS_LATE(call) (answer == SILENCE && (!calm || (!net[call] && verb == NOTHING)))
#define N_ON_THEIR_WAY (net[0] + net[1] + net[2] + net[3] + net[4] + net[5] + net[6])
/* A request that was given up may still arrive. One for exports changes nothing then. */
#define LEAVE(call)                                                                                \
	asked = NOTHING;                                                                           \
	if                                                                                         \
	:: net[call] = false                                                                       \
	:: N_ON_THEIR_WAY <= MAX_LATE && call != RENEW && call != FINISH                           \
		-> skip                                                                            \
	fi
#define HEARD asked = NOTHING; answer = SILENCE

inline guest_goes_on()
{
	q_runs = true;
	is_dirty = true
}

/* live_cancel_memory, for when QEMU has not been continued */
inline cancel_memory()
{
	at_switch = false;
	is_disarmed = false;
	if
	:: dog == ARMED || dog == KILLED -> dog = NO_DOG
	:: else
	fi;
	if
	:: q_move == ACTIVE || q_move == PRE_SWITCHOVER ->
		q_move = ENDED;
		stream = false;
		guest_goes_on()
	:: else
	fi
}

/* memory_yank */
inline yank()
{
	if
	:: q_move == DEVICE ->
		q_move = ENDED;
		stream = false;
		guest_goes_on()
	:: else
	fi
}

/* --- The sender --------------------------------------------------------------------------------*/

active proctype sender()
{
again:
	{
	if
	/* run_new */
	:: atomic { sdb == NEW ->
		if
		:: cancel_asked -> S_POST(NEW, CANCEL, ABORTING)
		:: !cancel_asked -> S_POST(NEW, FAILED, ABORTING)
		:: !cancel_asked && (Q_LIVES || !LIVE) -> S_POST(NEW, STARTED, PREPARING)
		fi }

	/* run_preparing: tracking starts before anything is read. */
	:: sdb == PREPARING ->
preparing:
		SEND(PREPARE);
		if
		:: atomic { answer == OK && (Q_LIVES || !LIVE) ->
			HEARD;
			S_POST(PREPARING, PREPARED, COPYING) }
		:: atomic { answer != SILENCE -> HEARD; goto preparing_failed }
		:: atomic { IS_LATE(PREPARE) ->
			LEAVE(PREPARE);
			if
			:: goto preparing
			:: !calm || cancel_asked -> goto preparing_failed
			fi }
		fi;
preparing_failed:
		atomic {
			if
			:: cancel_asked -> S_POST(PREPARING, CANCEL, ABORTING)
			:: !cancel_asked -> S_POST(PREPARING, FAILED, ABORTING)
			fi
		}

	/* run_copying */
	:: sdb == COPYING ->
copying:
		if
		:: atomic { exports ->
			is_dirty = q_runs;
			if
			:: !LIVE -> may_be_sealed = true; S_POST(COPYING, COPIED, SWITCHING)
			:: Q_LIVES -> S_POST(COPYING, BULK_COPIED, CONVERGING)
			:: !calm || (LIVE && !Q_LIVES) -> goto copying_failed
			fi }
		:: !exports -> SEND(RENEW);
			if
			:: atomic { answer == OK -> HEARD; goto copying }
			:: atomic { answer == REFUSED -> HEARD; goto copying_failed }
			:: atomic { IS_LATE(RENEW) ->
				LEAVE(RENEW);
				if
				:: goto copying
				:: !calm || cancel_asked -> goto copying_failed
				fi }
			fi
		fi;
copying_failed:
		atomic {
			if
			:: cancel_asked -> S_POST(COPYING, CANCEL, ABORTING)
			:: !cancel_asked -> S_POST(COPYING, FAILED, ABORTING)
			fi
		}

	/* run_converging: rounds, then the memory. */
	:: sdb == CONVERGING ->
converging:
		if
		:: exports -> skip
		:: !exports -> SEND(RENEW);
			if
			:: atomic { answer == OK -> HEARD; goto converging }
			:: atomic { answer == REFUSED -> HEARD; goto converging_failed }
			:: atomic { IS_LATE(RENEW) ->
				LEAVE(RENEW);
				if
				:: goto converging
				:: !calm || cancel_asked -> goto converging_failed
				fi }
			fi
		fi;
		/* start_memory */
incoming:
		SEND(INCOMING);
		if
		:: atomic { answer == OK && dog != ACTING ->
			HEARD;
			dog = (IS_BROKEN(8) -> NO_DOG : ARMED);
			is_disarmed = false;
			if
			:: q_move == NONE || q_move == ENDED -> q_move = ACTIVE
			:: else -> goto memory_failed
			fi;
			stream = (there == WAITING) }
		:: atomic { answer == REFUSED -> HEARD; goto memory_failed }
		:: atomic { IS_LATE(INCOMING) ->
			LEAVE(INCOMING);
			if
			:: goto incoming
			:: !calm || cancel_asked -> goto memory_failed
			fi }
		fi;
		/* rounds_beside_memory */
		if
		:: atomic { q_move == PRE_SWITCHOVER ->
			at_switch = true;
			may_be_sealed = true;
			S_POST(CONVERGING, STOPPED, SWITCHING) }
		:: q_move == ENDED || q_move == GONE -> skip
		:: cancel_asked || !calm -> skip
		fi;
memory_failed:
		atomic { cancel_memory() };
converging_failed:
		atomic {
			if
			:: cancel_asked -> S_POST(CONVERGING, CANCEL, ABORTING)
			:: !cancel_asked -> S_POST(CONVERGING, FAILED, ABORTING)
			fi
		}

	/* run_switching of a halted VM. A cancel that was asked for wins (choose_row). */
	:: sdb == SWITCHING && !LIVE ->
sealing:
		SEND(SEAL);
		if
		:: atomic { answer == OK && !cancel_asked ->
			HEARD;
			S_POST(SWITCHING, SEALED, COMMITTING) }
		:: atomic { answer == REFUSED || (answer == OK && cancel_asked) ->
			HEARD; goto switching_failed }
		:: atomic { IS_LATE(SEAL) ->
			LEAVE(SEAL);
			if
			:: goto sealing
			:: !calm || cancel_asked -> goto switching_failed
			fi }
		fi

	/* handover_seal: after a restart reenter. */
	:: sdb == SWITCHING && LIVE && !at_switch ->
		atomic {
			if
			:: q_move == DEVICE || q_move == COMPLETED || !Q_LIVES ->
				goto switching_failed
			:: else -> cancel_memory()
			fi
		};
renewing:
		SEND(RENEW);
		if
		:: atomic { answer == OK -> HEARD; goto resumed }
		:: atomic { answer == REFUSED -> HEARD; goto switching_failed }
		:: atomic { IS_LATE(RENEW) ->
			LEAVE(RENEW);
			if
			:: goto renewing
			:: !calm || cancel_asked -> goto switching_failed
			fi }
		fi

	:: sdb == SWITCHING && LIVE && at_switch ->
		/* last_round: too much is left, or the exports are gone. */
		if
		:: atomic { exports -> is_dirty = (IS_BROKEN(7) -> is_dirty : q_runs) }
		:: atomic { !calm || !exports || IS_BROKEN(11) -> cancel_memory(); goto resumed }
		fi;
		/* check_paused */
		if
		:: q_move == PRE_SWITCHOVER -> skip
		:: atomic { q_move != PRE_SWITCHOVER -> cancel_memory(); goto resumed }
		fi;
sealing_paused:
		SEND(SEAL);
		if
		:: atomic { answer == OK -> HEARD }
		:: atomic { answer == REFUSED -> HEARD; goto switching_failed }
		:: atomic { IS_LATE(SEAL) ->
			LEAVE(SEAL);
			if
			:: goto sealing_paused
			:: !calm || cancel_asked -> goto switching_failed
			fi }
		fi;
		atomic { S_POST(SWITCHING, SEALED_PAUSED, HANDOVER) };
resumed:
		atomic { S_POST(SWITCHING, RESUMED, CONVERGING) };
switching_failed:
		atomic {
			if
			:: cancel_asked -> S_POST(SWITCHING, CANCEL, ABORTING)
			:: !cancel_asked -> S_POST(SWITCHING, FAILED, ABORTING)
			fi
		}

	/* handover_run: only the run that stopped the guest may let QEMU go on. */
	:: sdb == HANDOVER ->
		if
		:: atomic { q_move == PRE_SWITCHOVER && at_switch ->
			/* watchdog_disarm */
			if
			:: dog == ARMED || is_disarmed ->
				dog = (IS_BROKEN(6) -> dog : NO_DOG);
				is_disarmed = true
			:: IS_BROKEN(8) -> is_disarmed = true
			:: dog == NO_DOG && !is_disarmed && !IS_BROKEN(8) -> goto handover_failed
			:: dog == KILLED -> goto handover_failed
			fi }
			/* migrate-continue, unless it is too late. */
			d_step {
				if
				:: q_move == PRE_SWITCHOVER -> q_move = DEVICE
				:: else
				fi;
				is_disarmed = false
			}
		:: atomic { q_move == PRE_SWITCHOVER && !at_switch -> cancel_memory() }
		:: else
		fi;
		if
		:: atomic { q_move == COMPLETED && !cancel_asked && !IS_BROKEN(3) ->
			S_POST(HANDOVER, HANDED_OVER, COMMITTING) }
		:: q_move == COMPLETED && IS_BROKEN(3) ->
			SEND(COMMIT_CALL);
			if
			:: atomic { answer == IS_COMMITTED -> HEARD; sdb = FINISHING; goto again }
			:: atomic { answer == IS_ABORTED || answer == REFUSED -> HEARD }
			:: atomic { IS_LATE(COMMIT_CALL) -> LEAVE(COMMIT_CALL); goto again }
			fi
		:: q_move == COMPLETED && cancel_asked -> skip
		:: q_move != COMPLETED && q_move != DEVICE -> skip
		:: q_move == DEVICE && !calm -> /* cut_stream */
			SEND(ABORT_CALL);
			if
			:: atomic { answer != SILENCE -> HEARD; yank() }
			:: atomic { IS_LATE(ABORT_CALL) -> LEAVE(ABORT_CALL); yank() }
			fi
		fi;
handover_failed:
		atomic {
			if
			:: cancel_asked -> S_POST(HANDOVER, CANCEL, ABORTING)
			:: !cancel_asked -> S_POST(HANDOVER, FAILED, ABORTING)
			fi
		}

	/* run_committing: asks until it is answered; an operator's word counts when it is not. */
	:: sdb == COMMITTING ->
		SEND(COMMIT_CALL);
		if
		:: atomic { answer == IS_COMMITTED ->
			HEARD;
			S_POST(COMMITTING, COMMITTED, FINISHING) }
		:: atomic { answer == IS_ABORTED ->
			HEARD;
			S_POST(COMMITTING, REFUSED, ABORTING) }
		:: atomic { answer == REFUSED -> HEARD; goto again }
		:: atomic { IS_LATE(COMMIT_CALL) ->
			LEAVE(COMMIT_CALL);
			if
			:: said == IS_COMMITTED ->
				is_assumed = true;
				S_POST(COMMITTING, ASSUMED_COMMITTED, FINISHING)
			:: said == IS_ABORTED -> S_POST(COMMITTING, ASSUMED_ABORTED, ABORTING)
			:: said == SILENCE && ((IS_BROKEN(1) && cancel_asked) || IS_BROKEN(2)) ->
				sdb = ABORTING
			:: said == SILENCE && !IS_BROKEN(1) && !IS_BROKEN(2) -> skip
			fi;
			goto again }
		fi

	/* run_finishing */
	:: sdb == FINISHING ->
		d_step { q_runs = false; q_move = GONE; at_switch = false };
confirming:
		if
		:: is_assumed ->
			SEND(COMMIT_CALL);
			if
			:: atomic { answer == IS_COMMITTED || answer == IS_ABORTED -> HEARD }
			:: atomic { answer == REFUSED -> HEARD; goto confirming }
			:: atomic { IS_LATE(COMMIT_CALL) ->
				LEAVE(COMMIT_CALL);
				if
				:: goto confirming
				:: !calm -> skip /* forgotten */
				fi }
			fi
		:: else
		fi;
finishing:
		SEND(FINISH);
		if
		:: atomic { answer != SILENCE -> HEARD }
		:: atomic { IS_LATE(FINISH) ->
			LEAVE(FINISH);
			if
			:: goto finishing
			:: !calm -> skip
			fi }
		fi;
		atomic { S_POST(FINISHING, FINISHED, DONE) }

	/* run_aborting: first the guest, then the destination. */
	:: sdb == ABORTING ->
		if
		:: !Q_LIVES -> skip
		:: q_move == DEVICE && !calm -> /* cut_stream */
			SEND(ABORT_CALL);
			if
			:: atomic { answer != SILENCE -> HEARD; yank() }
			:: atomic { IS_LATE(ABORT_CALL) -> LEAVE(ABORT_CALL); yank() }
			fi;
			goto again
		:: q_move == COMPLETED -> /* take_back */
			SEND(ABORT_CALL);
			if
			:: atomic { answer != SILENCE -> HEARD }
			:: atomic { IS_LATE(ABORT_CALL) -> LEAVE(ABORT_CALL) }
			fi;
			atomic {
				if
				:: Q_LIVES -> guest_goes_on()
				:: else
				fi
			}
		:: atomic { Q_LIVES && q_move != DEVICE && q_move != COMPLETED ->
			cancel_memory();
			if
			:: !q_runs -> guest_goes_on()
			:: else
			fi }
		fi;
		d_step {
			at_switch = false;
			is_disarmed = false;
			dog = (dog == ACTING -> ACTING : NO_DOG)
		};
telling:
		SEND(ABORT_CALL);
		if
		:: atomic { IS_BROKEN(9) -> net[ABORT_CALL] = false; HEARD }
		:: atomic { answer != SILENCE && answer != REFUSED -> HEARD }
		:: atomic { answer == REFUSED -> HEARD; goto telling }
		:: atomic { IS_LATE(ABORT_CALL) ->
			LEAVE(ABORT_CALL);
			if
			:: goto telling
			:: !calm && !may_be_sealed -> skip /* it forgets the migration by itself */
			fi }
		fi;
		atomic {
			if
			:: cancel_asked -> S_POST(ABORTING, UNDONE_CANCELLED, CANCELLED)
			:: !cancel_asked -> S_POST(ABORTING, UNDONE, FAILED)
			fi
		}

	:: IS_FINAL(sdb) -> goto over
	fi
	} unless { atomic { s_dies?_ ->
		/* Nothing is left but what is stored and what runs by itself. A guest that is paused
		 * has a keeper. */
		LAW(4, q_move != PRE_SWITCHOVER || dog != NO_DOG || (is_disarmed && sdb == HANDOVER));
		at_switch = false;
		asked = NOTHING;
		answer = SILENCE;
		stream = false;
		dog = (dog == ARMED -> ACTING : dog);
		goto again } };
over:
	skip
}

/* --- The receiver ------------------------------------------------------------------------------*/

/* The keeper has its turn before the next call, once it is calm. */
#define TAKE(call)                                                                                 \
	net[call] && !(calm && rdb == ABORTING) ->                                                 \
	verb = call;                                                                               \
	if                                                                                         \
	:: net[call] = false                                                                       \
	:: N_ON_THEIR_WAY <= MAX_LATE && !calm -> skip                                             \
	fi
#define REPLY(word)                                                                                \
	if                                                                                         \
	:: asked == verb && verb != NOTHING -> answer = word                                       \
	:: asked != verb || verb == NOTHING || !calm -> skip                                       \
	fi;                                                                                        \
	verb = NOTHING;                                                                            \
	why = 0;                                                                                   \
	goto end_next

inline kill_qemu_there()
{
	if
	:: there == WAITING || there == LOADED || there == DEAD -> there = NO_QEMU; stream = false
	:: else
	fi
}

active proctype receiver()
{
	byte why; /* 0: failed, 1: cancelled, 2: abandoned */
start:
	{
	/* guests_recover: a guest whose VM was given to this host runs. clear_up. */
	atomic {
		if
		:: dec == COMMIT && there == LOADED && !IS_BROKEN(10) -> there = RUNS
		:: rdb == ALLOCATING || rdb == RECEIVING -> kill_qemu_there()
		:: else
		fi
	};
	/* adopt_decision */
	atomic {
		if
		:: IS_FINAL(rdb) -> rdb = ABSENT
		:: rdb != ABSENT && !IS_FINAL(rdb) && dec == ABORT -> goto abort
		:: rdb == SEALED && dec == COMMIT -> goto follow
		:: else
		fi
	};

end_next:
	if
	:: atomic { TAKE(PREPARE);
		if
		:: rdb == ABSENT && dec == UNDECIDED -> rdb = ALLOCATING
		:: rdb == ALLOCATING
		:: rdb == RECEIVING -> exports = true; REPLY(OK)
		:: else -> REPLY(REFUSED)
		fi };
		/* receiver_allocate */
		has_disks_there = true;
		atomic {
			if
			:: exports = true; R_POST(ALLOCATING, PREPARED, RECEIVING); REPLY(OK)
			:: !calm -> goto abort
			fi
		}

	:: atomic { TAKE(RENEW);
		if
		:: rdb == RECEIVING -> exports = true; REPLY(OK)
		:: else -> REPLY(REFUSED)
		fi }

	/* receiver_incoming */
	:: atomic { TAKE(INCOMING);
		if
		:: rdb == RECEIVING -> kill_qemu_there(); there = WAITING; REPLY(OK)
		:: else -> REPLY(REFUSED)
		fi }

	/* receiver_seal */
	:: atomic { TAKE(SEAL);
		if
		:: rdb == SEALED -> REPLY(OK)
		:: rdb == RECEIVING -> exports = false
		:: else -> REPLY(REFUSED)
		fi };
		atomic {
			if
			:: R_POST(RECEIVING, SEALED, SEALED); REPLY(OK)
			:: !calm -> goto abort
			fi
		}

	/* receiver_commit: look_before, then import_and_decide in one transaction. */
	:: atomic { TAKE(COMMIT_CALL);
		if
		:: rdb != SEALED -> goto decided
		:: rdb == SEALED && dec == COMMIT -> goto follow
		:: rdb == SEALED && dec == ABORT -> goto abort
		:: rdb == SEALED && dec == UNDECIDED
		fi };
		atomic {
			if
			:: LIVE && there != LOADED && there != WAITING -> goto abort
			:: LIVE && there == WAITING && (!calm || !stream) -> goto abort
			:: (!LIVE || there == LOADED) && cancel_asked_there -> goto abort
			:: (!LIVE || there == LOADED) && !calm && !IS_BROKEN(5) -> goto abort
			:: (!LIVE || there == LOADED) && !calm && IS_BROKEN(5) -> REPLY(IS_ABORTED)
			:: (!LIVE || there == LOADED) && !cancel_asked_there ->
				LAW(3, !is_dirty);
				dec = COMMIT
			fi
		};
		goto follow

	/* Peer.abort */
	:: atomic { TAKE(ABORT_CALL);
		if
		:: rdb == ABSENT || rdb == COMMITTED || IS_FINAL(rdb) -> goto decided
		:: else -> goto abort
		fi }

	:: atomic { TAKE(FINISH);
		if
		:: rdb == COMMITTED -> goto finish
		:: else -> REPLY(OK)
		fi }

	/* look_after: the keeper, for whom nobody waits. */
	:: atomic { rdb == ABORTING -> goto abort }
	:: atomic { cancel_asked_there && (rdb == ALLOCATING || rdb == RECEIVING || rdb == SEALED) ->
		why = 1; goto abort }
	:: atomic { (rdb == ALLOCATING || rdb == RECEIVING) && (!calm || IS_FINAL(sdb)) ->
		why = 2; goto abort }
	:: atomic { rdb == RECEIVING && (exports || QEMU_THERE_LIVES) && !calm ->
		exports = false;
		kill_qemu_there();
		goto end_next }
	:: atomic { rdb == COMMITTED && (!calm || IS_FINAL(sdb)) -> goto finish }
	fi;

	/* follow: the guest runs first. */
follow:
	atomic {
		if
		:: there == LOADED && !IS_BROKEN(10) -> there = RUNS
		:: else
		fi
	};
	atomic { R_POST(SEALED, COMMITTED, COMMITTED) };
	atomic {
		if
		:: IS_BROKEN(10) && there == LOADED -> there = RUNS
		:: else
		fi;
		goto decided
	};

	/* receiver_finish */
finish:
	atomic { R_POST(COMMITTED, FINISHED, DONE) };
	atomic { rdb = ABSENT; REPLY(OK) };

	/* receiver_abort */
abort:
	atomic {
		if
		:: dec == COMMIT -> goto follow
		:: dec != COMMIT -> dec = ABORT
		fi
	};
	atomic {
		if
		:: rdb == ALLOCATING && why == 0 -> R_POST(ALLOCATING, FAILED, ABORTING)
		:: rdb == ALLOCATING && why == 1 -> R_POST(ALLOCATING, CANCEL, ABORTING)
		:: rdb == ALLOCATING && why == 2 -> R_POST(ALLOCATING, ABANDONED, ABORTING)
		:: rdb == RECEIVING && why == 0 -> R_POST(RECEIVING, FAILED, ABORTING)
		:: rdb == RECEIVING && why == 1 -> R_POST(RECEIVING, CANCEL, ABORTING)
		:: rdb == RECEIVING && why == 2 -> R_POST(RECEIVING, ABANDONED, ABORTING)
		:: rdb == SEALED && why == 0 -> R_POST(SEALED, FAILED, ABORTING)
		:: rdb == SEALED && why == 1 -> R_POST(SEALED, CANCEL, ABORTING)
		:: rdb == ABORTING
		fi;
		why = 0
	};
	atomic {
		if
		:: kill_qemu_there(); exports = false
		:: !calm -> goto decided
		fi
	};
	atomic {
		if
		:: has_disks_there = false
		:: !calm -> goto decided
		fi
	};
	atomic {
		if
		:: cancel_asked_there -> R_POST(ABORTING, UNDONE_CANCELLED, CANCELLED)
		:: !cancel_asked_there -> R_POST(ABORTING, UNDONE, FAILED)
		fi
	};
	rdb = ABSENT;

	/* is_decided and answer_decision: one who is not known here is never committed later. */
decided:
	atomic {
		if
		:: verb != COMMIT_CALL && verb != ABORT_CALL -> REPLY(REFUSED)
		:: (verb == COMMIT_CALL || verb == ABORT_CALL) &&
			(rdb == ABSENT || rdb == COMMITTED || IS_FINAL(rdb) ||
				(rdb == ABORTING && !QEMU_THERE_LIVES)) ->
			if
			:: dec == COMMIT -> REPLY(IS_COMMITTED)
			:: dec != COMMIT -> dec = ABORT; REPLY(IS_ABORTED)
			fi
		:: else -> REPLY(REFUSED)
		fi
	}
	} unless { atomic { r_dies?_ ->
		stream = false;
		exports = false;
		verb = NOTHING;
		why = 0;
		goto start } }
}

/* --- QEMU --------------------------------------------------------------------------------------*/

active proctype qemu()
{
end_idle:
	do
	/* The guest is stopped, and QEMU waits. */
	:: d_step { q_move == ACTIVE && stream && there == WAITING ->
		q_move = PRE_SWITCHOVER;
		q_runs = false }
	:: d_step { q_move == ACTIVE && !stream -> q_move = ENDED }
	/* The destination has all of it; the source learns so by the return path. */
	:: d_step { q_move == DEVICE && stream && there == WAITING ->
		there = (IS_BROKEN(4) -> RUNS : LOADED) }
	:: d_step { q_move == DEVICE && stream && there == LOADED -> q_move = COMPLETED }
	/* QEMU lets the guest go on by itself. */
	:: d_step { q_move == DEVICE && !stream -> q_move = ENDED; guest_goes_on() }
	od
}

/* It looks before it acts, and the agent can disarm it only in between. */
active proctype watchdog()
{
end_idle:
	do
	:: d_step { dog == ARMED && !calm && q_move == PRE_SWITCHOVER -> dog = ACTING }
	:: d_step { IS_BROKEN(6) && dog == ARMED && !calm -> dog = ACTING }
	:: d_step { dog == ACTING ->
		dog = NO_DOG;
		if
		:: q_move == ACTIVE || q_move == PRE_SWITCHOVER ||
				(IS_BROKEN(6) && q_move == DEVICE) ->
			q_move = ENDED;
			stream = false;
			guest_goes_on()
		:: IS_BROKEN(6) && q_move == COMPLETED -> guest_goes_on()
		:: else
		fi }
	od
}

/* --- What happens to them ----------------------------------------------------------------------*/

#define IS_CANCELLABLE                                                                             \
	(sdb == NEW || sdb == PREPARING || sdb == COPYING || sdb == CONVERGING ||                  \
		sdb == SWITCHING || sdb == HANDOVER || (IS_BROKEN(1) && sdb == COMMITTING))

active proctype world()
{
	do
	:: s_dies!0
	:: r_dies!0
	:: d_step { stream -> stream = false }
	:: d_step { !cancel_asked && IS_CANCELLABLE -> cancel_asked = true }
	:: d_step { RESOLVE > 0 && sdb == COMMITTING && said == SILENCE && dec == COMMIT ->
		said = IS_COMMITTED }
	:: d_step { RESOLVE > 0 && sdb == COMMITTING && said == SILENCE && dec == ABORT ->
		said = IS_ABORTED }
	:: d_step { RESOLVE == 2 && sdb == COMMITTING && said == SILENCE -> said = IS_ABORTED }
	:: d_step { RESOLVE == 3 && sdb == COMMITTING && said == SILENCE -> said = IS_COMMITTED }
	:: d_step { HAS_FAULT(2) && !cancel_asked_there && rdb != ABSENT -> cancel_asked_there = true }
	:: d_step { HAS_FAULT(4) && LIVE && Q_LIVES -> q_runs = false; q_move = GONE; stream = false }
	:: d_step { HAS_FAULT(8) && !IS_FINAL(sdb) && QEMU_THERE_LIVES -> there = DEAD; stream = false }
	:: d_step { HAS_FAULT(16) && (dog == ARMED || dog == ACTING) -> dog = KILLED }
	:: calm = true -> break
	od
}

/* --- What must hold ----------------------------------------------------------------------------*/

#ifdef LIVENESS
/* It does not go on for ever once nothing fails any more. */
never {
	do
	:: !calm
	:: calm -> break
	od;
accept:
	do
	:: !(IS_FINAL(sdb) && (rdb == ABSENT || rdb == SEALED))
	od
}
#else
active proctype law()
{
end_law:
	if
	/* One runner; and after the decision never again at the source. */
	:: atomic { IS_LAW(1) && q_runs && there == RUNS -> assert(false) }
	:: atomic { IS_LAW(2) && q_runs && dec == COMMIT -> assert(false) }
	:: atomic { IS_LAW(2) && there == RUNS && dec != COMMIT -> assert(false) }
	/* Everything has come to its end. */
	:: atomic { timeout ->
		LAW(5, calm && IS_FINAL(sdb) && dog != ARMED && dog != ACTING);
		LAW(6, !cancel_asked || sdb == CANCELLED);
		LAW(5, (dec == COMMIT) == (sdb == DONE));
		if
		:: dec == COMMIT ->
			LAW(5, rdb == ABSENT && has_disks_there && !Q_LIVES);
			LAW(5, !LIVE || there == RUNS || there == DEAD)
		:: dec != COMMIT ->
			LAW(5, q_runs == Q_LIVES);
			LAW(5, rdb == ABSENT && !has_disks_there && !exports);
			LAW(5, !QEMU_THERE_LIVES)
		fi }
	fi
}
#endif
