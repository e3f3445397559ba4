# frozen_string_literal: true

module Support
  # One running server for many examples: each request carries the Ruby code that answers it.
  #
  # In that code `env` is the request's env, `handler { def on_open(client) ... end }` makes a callback
  # object, `report(line)` (there and in the callbacks) writes a line that the example reads with
  # {Helpers#reports}, and the last value is the Rack response.
  module Lab
    CLASSES = <<~RUBY
      class LabHandler
        def initialize(path)
          @path = path
        end

        def report(line)
          File.write(@path, "\#{line}\\n", mode: "a")
        end
      end

      class Lab
        attr_reader :env

        def initialize(env)
          @env = env
          @path = env["HTTP_X_REPORT"]
        end

        def call
          code = env["HTTP_X_LAB"]
          code ? instance_eval(code.unpack1("m0").force_encoding("UTF-8"), "lab", 1) : [200, { "content-type" => "text/plain" }, ["lab"]]
        end

        def handler(&block)
          LabHandler.new(@path).tap { |object| object.singleton_class.class_eval(&block) }
        end

        def report(line)
          File.write(@path, "\#{line}\\n", mode: "a")
        end
      end
    RUBY

    APP = "#{CLASSES}\nuse Brokerd::Middleware\nrun ->(env) { Lab.new(env).call }\n"

    # The code that upgrades with a handler of these methods.
    def self.upgrading(methods)
      "env['rack.upgrade'] = handler do\n#{methods}\nend\n[200, {}, []]"
    end

    # What a group of examples says to have one server for all of them.
    module Macros
      # @param bind [Boolean] on a unix socket
      def lab(app = APP, bind: false, **options)
        before(:context) do
          @lab_folder = Dir.mktmpdir("brokerd-lab")
          @lab_broker = Broker.new(@lab_folder)
          @lab = Server.new(@lab_folder, app, url: @lab_broker.url,
                                         bind: bind ? File.join(@lab_folder, "server.sock") : nil, **options)
        end
        after(:context) do
          @lab&.stop
          @lab_broker&.stop
          FileUtils.remove_entry(@lab_folder)
        end
      end
    end
  end
end
