# frozen_string_literal: true

# Builds the daemon and brokerctl when the gem is installed: programs, not a Ruby extension. They go to
# <sitearchdir>/brokerd/bin below the gem's extension folder, where exe/brokerd finds them.
#
#   BROKERD_SKIP_DAEMON=1   build nothing (a machine that only connects to a broker elsewhere)
require "etc"
require "mkmf"

DAEMON_NEEDS = [
  ["event_core", "event2/event.h", "event_base_new", "libevent-dev", "libevent-devel", "libevent"],
  ["event_extra", "event2/http.h", "evhttp_new", "libevent-dev", "libevent-devel", "libevent"],
  ["crypto", "openssl/evp.h", "EVP_sha256", "libssl-dev", "openssl-devel", "openssl@3"],
  ["ssl", "openssl/ssl.h", "SSL_new", "libssl-dev", "openssl-devel", "openssl@3"]
].freeze

unless ENV["BROKERD_SKIP_DAEMON"].to_s.empty?
  File.write("Makefile", "all:\ninstall:\nclean:\ndistclean:\n")
  warn "brokerd: BROKERD_SKIP_DAEMON is set: brokerd and brokerctl are not built"
  exit
end

%w[libevent_core libevent_extra libssl libcrypto].each { |name| pkg_config(name) }
missing = DAEMON_NEEDS.reject { |library, header, function,| have_header(header) && have_library(library, function, header) }
missing.each do |_, header, _, debian, fedora, brew|
  warn "brokerd: #{header} is missing. Debian/Ubuntu: apt install #{debian}; " \
       "Fedora: dnf install #{fedora}; macOS: brew install #{brew}"
end
abort "brokerd: the daemon cannot be built without the above (BROKERD_SKIP_DAEMON=1 leaves it out)" unless missing.empty?

daemon_libraries = $libs.dup
# libnng has no .pc file. brokerctl alone needs it: without it the launcher says what to install.
with_ctl = have_header("nng/nng.h") && have_library("nng", "nng_req0_open", %w[nng/nng.h nng/protocol/reqrep0/req.h])

root = File.expand_path("..", __dir__)
version = File.read(File.join(root, "adapter/lib/brokerd/version.rb"))[/VERSION = "([^"]+)"/, 1]
flags = "-std=c11 -O2 -pthread -D_GNU_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE -fno-common"
includes = %w[protocol brokerd brokerd/ctl].map { |folder| "-I#{File.join(root, folder)}" }.join(" ")
paths = $LIBPATH.map { |path| "-L#{path}" }.join(" ")
compile = lambda do |folder|
  Dir[File.join(root, folder, "*.c")].sort.to_h do |source|
    object = "#{folder.tr('/', '-')}-#{File.basename(source, '.c')}.o"
    [object, "#{object}: #{source}\n\t$(CC) $(CPPFLAGS) #{flags} #{includes} -DBROKERD_VERSION='\"#{version}\"' -c -o $@ #{source}\n"]
  end
end
link = lambda do |name, objects, libraries|
  "#{name}: #{objects.join(' ')}\n\t$(CC) -pie -pthread -Wl,-z,relro,-z,now -o $@ #{objects.join(' ')} #{$LDFLAGS} #{paths} #{libraries}\n"
end

protocol, daemon = compile["protocol"], compile["brokerd"]
rules = [*protocol.values, *daemon.values, link["brokerd", protocol.keys + daemon.keys, daemon_libraries]]
programs = ["brokerd"]
if with_ctl
  ctl = compile["brokerd/ctl"]
  rules.push(*ctl.values, link["brokerctl", protocol.keys + ctl.keys, $libs])
  programs << "brokerctl"
end

# Where the programs go is written down now: RubyGems passes sitearchdir on make's command line, or nothing.
# It builds in the installed gem's own folder: nothing but what was installed is left there.
File.write("Makefile", <<~MAKE)
  CC = #{RbConfig::CONFIG['CC']}
  CPPFLAGS = #{$CPPFLAGS.gsub(/\$\([^)]*\)/, '')}
  sitearchdir = #{RbConfig::CONFIG['sitearchdir']}
  MAKEFLAGS += -j#{[Etc.nprocessors, 8].min}
  target = $(DESTDIR)$(sitearchdir)/brokerd/bin

  all: #{programs.join(' ')}

  install: all
  \tmkdir -p $(target)
  \tinstall -m 0755 #{programs.join(' ')} $(target)
  \trm -f *.o #{programs.join(' ')} mkmf.log

  clean:
  \trm -f *.o #{programs.join(' ')}

  distclean: clean
  \trm -f Makefile mkmf.log

  .PHONY: all install clean distclean

  #{rules.join("\n")}
MAKE
