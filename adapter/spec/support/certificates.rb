# frozen_string_literal: true

require "openssl"

module Support
  # A certificate authority of an example's own, and certificates of it, as PEM files in a folder.
  class Authority
    attr_reader :file

    def initialize(folder, name)
      @folder = folder
      @key = OpenSSL::PKey::EC.generate("prime256v1")
      @certificate = certificate("/CN=#{name}", @key, 3600, [["basicConstraints", "CA:TRUE", true]])
      @file = write("#{name}.ca.pem", @certificate.to_pem)
    end

    # @param names [String] as in "DNS:localhost,IP:127.0.0.1"
    # @param seconds [Integer] from now to its end
    # @return [Array(String, String)] the files of the certificate and of its key
    def issue(name, names, seconds: 30 * 86_400)
      key = OpenSSL::PKey::EC.generate("prime256v1")
      issued = certificate("/CN=#{name}", key, seconds, [["subjectAltName", names, false]])
      [write("#{name}.pem", issued.to_pem), write("#{name}.key", key.to_pem)]
    end

    private

    def certificate(subject, key, seconds, extensions)
      made = OpenSSL::X509::Certificate.new
      made.version = 2
      made.serial = rand(1 << 62)
      made.subject = OpenSSL::X509::Name.parse(subject)
      made.issuer = (@certificate || made).subject
      made.public_key = key
      made.not_before = Time.now - 7200
      made.not_after = Time.now + seconds
      extensions.each { |extension| made.add_extension(OpenSSL::X509::ExtensionFactory.new.create_ext(*extension)) }
      made.sign(@key, OpenSSL::Digest.new("SHA256"))
    end

    def write(name, text)
      File.join(@folder, name).tap { |path| File.write(path, text, perm: 0o600) }
    end
  end
end
