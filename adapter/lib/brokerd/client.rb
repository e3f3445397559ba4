# frozen_string_literal: true

module Brokerd
  # The interface of the classes that are written in C (adapter/ext/rb_client.c, rb_subscription.c).

  # What all errors of this library's own are.
  class Error < StandardError; end

  # The broker wants a secret that is not ours.
  class AuthenticationError < Error; end

  # A limit of the broker or of this process is reached.
  class LimitError < Error; end

  # The broker speaks another version of the protocol.
  class ProtocolError < Error; end

  # One browser's connection: the same object in all its callbacks, which run in order and never two at a time.
  # Every method may be called from any thread, and none of them blocks.
  class Client
    # @!method write(data, event: nil, id: nil, retry: nil)
    #   Sends one message. WebSocket: valid UTF-8 as text, anything else as binary; EventSource: one event, whose
    #   data arrives with its line breaks and cannot forge anything else. The String may be changed afterwards.
    #   `retry:` (EventSource only, an Integer) is how many milliseconds the browser waits before it connects again.
    #   @param data [String]
    #   @param event [#to_s, nil] EventSource only: the event's type
    #   @param id [#to_s, nil] EventSource only: what the browser sends as Last-Event-ID when it connects again,
    #     `env["HTTP_LAST_EVENT_ID"]`
    #   @return [Boolean] false when the client is closed
    #   @raise [TypeError] when data is no String or retry no Integer
    #   @raise [ArgumentError] when event or id has a line break, a NUL or invalid UTF-8, retry is negative, or
    #     the client is a WebSocket and any of the three is given

    # @!method close
    #   Closes after what was written has been sent.
    #   @return [nil]

    # @!method open?
    #   @return [Boolean] false once closed or marked to be closed

    # @!method pending
    #   @return [Integer] writes that were not yet handed to the kernel; -1 once closed

    # @!method env
    #   @return [Hash, nil] what the setting `env` keeps of the request

    # @!method protocol
    #   @return [Symbol] `:websocket` or `:sse`

    # @!method handler
    #   @return [Object] the callback object

    # @!method handler=(handler)
    #   Runs the old object's on_close, then the new one's on_open. Subscriptions stay.

    # @!method timeout
    #   @return [Integer] seconds of silence before a ping, 0 never

    # @!method timeout=(seconds)
    #   @param seconds [Integer] from 0 to 86400

    # @!method pubsub?
    #   @return [Integer] 0, the version of the pub/sub extension

    # @!method subscribe(to, is_pattern = false, match: nil, as: nil)
    #   Without a block messages go straight to the browser, without Ruby. Ends with the client; the same name
    #   and kind again replaces the older one.
    #   @param to [String, Symbol] a channel or, with is_pattern or `match: :redis`, a glob pattern
    #   @param as [:text, :binary, nil] overrides the message's own kind
    #   @yieldparam channel [String] the one that was published to
    #   @yieldparam message [String]
    #   @return [true, nil] nil when the client is closed

    # @!method unsubscribe(from, is_pattern = false)
    #   @return [Boolean] whether there was one

    # @!method publish(to, message, engine = nil)
    #   @return [Boolean]
    #   @see Brokerd.publish
  end

  # A subscription of this process, made by {Brokerd.subscribe}.
  class Subscription
    # @!method name
    #   @return [String] the channel or pattern

    # @!method pattern?
    #   @return [Boolean]

    # @!method active?
    #   @return [Boolean] false once cancelled or replaced

    # @!method cancel
    #   @return [Boolean] whether it was active

    # @!method on_gap
    #   With a block: what is called when messages were dropped because this subscription's block is too slow.
    #   @yieldparam count [Integer]
    #   @yieldparam reason [String]
    #   @return [Subscription, Proc, nil] self; without a block the block that was given
  end
end
