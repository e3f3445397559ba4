#include "background.h"
#include "options.h"
#include "server.h"

int main(int argc, char **argv)
{
    static struct options options;
    switch (options_parse(&options, argc, argv)) {
    case OPTIONS_EXIT_OK:
        return 0;
    case OPTIONS_EXIT_USAGE:
        return 2;
    default:
        log_set_level(options.log_level);
        if (options.background && (options.ready_fd = background_enter()) < 0)
            return 1;
        return server_run(&options);
    }
}
