#ifndef BROKERD_ADMIN_H
#define BROKERD_ADMIN_H

/*
 * The admin port: HTTP by libevent's evhttp on the broker's own loop. GET /healthz answers "ok"
 * (503 "draining" while it ends), GET /metrics the counters in Prometheus' text format.
 */
struct admin;
struct server;
struct listen_url;

/* NULL after one logged line when the port cannot be bound. */
struct admin *admin_new(struct server *server, const struct listen_url *url);
void admin_free(struct admin *admin); /* NULL is allowed */

#endif
