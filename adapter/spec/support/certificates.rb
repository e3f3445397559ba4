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

    # @param certificates [Array<String>] files of certificates that are good no longer
    # @return [String] the file of the list
    def revoke(*certificates)
      list = OpenSSL::X509::CRL.new
      list.version = 1
      list.issuer = @certificate.subject
      list.last_update = Time.now - 7200
      list.next_update = Time.now + 3600
      certificates.each { |file| list.add_revoked(revoked(OpenSSL::X509::Certificate.new(File.read(file)))) }
      write("crl.pem", list.sign(@key, OpenSSL::Digest.new("SHA256")).to_pem)
    end

    private

    def revoked(certificate)
      OpenSSL::X509::Revoked.new.tap do |entry|
        entry.serial = certificate.serial
        entry.time = Time.now - 7200
      end
    end

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
