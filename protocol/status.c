#include "status.h"

const char *status_text(unsigned number)
{
    switch (number) {
#define STATUS_CASE(name, value, text)                                                             \
    case value:                                                                                    \
        return text;
        STATUS_LIST(STATUS_CASE)
#undef STATUS_CASE
    default:
        return "unknown status";
    }
}
