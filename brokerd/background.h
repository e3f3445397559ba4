#ifndef BROKERD_BACKGROUND_H
#define BROKERD_BACKGROUND_H

/*
 * `brokerd --background`: the daemon leaves the process, session and folder that started it. Called
 * once, before anything is opened.
 *
 * The calling process waits until the daemon listens and then ends with status 0, or with 1 when
 * the daemon ended before (its words are on standard error). Only the daemon returns: in a session
 * of its own (a ctrl-C at the terminal does not reach it), in the folder /, with no descriptor but
 * the three standard ones, so that it holds no pipe or socket of its starter open. The result is
 * the descriptor to write one byte to when it listens (as --ready-fd); -1: it could not be done,
 * the reason is logged.
 */
int background_enter(void);

#endif
