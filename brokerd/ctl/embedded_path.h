#ifndef BROKERCTL_EMBEDDED_PATH_H
#define BROKERCTL_EMBEDDED_PATH_H

/*
 * Where an application's own broker listens when no URL is configured: the same rule as
 * adapter/lib/brokerd/embedded.rb. <tmp>/brokerd-<uid>/<first 16 hex digits of SHA-256 of the real
 * path of the folder with the Gemfile (or gems.rb), else of the current folder>.sock; BROKERD_APP
 * replaces that path.
 */

/* ipc URL, heap memory for the caller to free; NULL with *reason (static) when there is none. */
char *embedded_url(const char **reason);

#endif
