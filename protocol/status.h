#ifndef PROTOCOL_STATUS_H
#define PROTOCOL_STATUS_H

/*
 * Every outcome that one side tells the other, and every refusal that a codec can give.
 *
 * There is one list for the whole project: the broker puts the number into a reply, brokerctl turns
 * it into an exit status, the gem into an exception or a log line (adapter/ext/rb_brokerd.c). A
 * number is never used for another meaning again. docs/protocol.md lists them.
 */
#define STATUS_LIST(X)                                                                             \
    X(STATUS_OK, 0, "ok")                                                                          \
    X(STATUS_MALFORMED, 1, "malformed request")                                                    \
    X(STATUS_VERSION, 2, "protocol version is not spoken here")                                    \
    X(STATUS_UNKNOWN_OPERATION, 3, "unknown operation")                                            \
    X(STATUS_NOT_ATTACHED, 4, "the session is not attached on this connection")                    \
    X(STATUS_OUT_OF_ORDER, 5, "the publish sequence has a hole")                                   \
    X(STATUS_AUTH, 6, "authentication is required")                                                \
    X(STATUS_DENIED, 7, "authentication failed")                                                   \
    X(STATUS_STALE, 8, "a newer link of this process is attached")                                 \
    X(STATUS_TOO_LARGE, 9, "the message is larger than the broker takes")                          \
    X(STATUS_CHANNEL_LENGTH, 10, "the channel name is longer than 4096 bytes")                     \
    X(STATUS_PATTERN, 11, "the pattern is malformed: '[' without ']' or an empty class '[]'")      \
    X(STATUS_WEAK_PATTERN, 12, "too many patterns without a literal part")                         \
    X(STATUS_FULL, 13, "a limit of the broker is reached")                                         \
    X(STATUS_GOING_AWAY, 14, "the broker is shutting down")                                        \
    X(STATUS_UNKNOWN_NAME, 15, "no such engine or session")                                        \
    X(STATUS_TRUNCATED, 16, "more bytes are needed")                                               \
    X(STATUS_NO_MEMORY, 17, "out of memory")

enum status {
#define STATUS_ENUM(name, number, text) name = number,
    STATUS_LIST(STATUS_ENUM)
#undef STATUS_ENUM
};

/* The text of a status, a static string that is never NULL ("unknown status" for a number that this
 * version does not know, as a newer peer may send one). Any thread. */
const char *status_text(unsigned number);

#endif
