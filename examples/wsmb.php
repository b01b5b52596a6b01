<?php
// A client for wsmb in plain PHP, 7.4 to 8.x. send.php and receive.php use it; put this file into their directory.
// It needs the extension json, which PHP always has, and openssl for wss:// addresses.

/** An error that another try would not change: in the address, the certificate, the login, the message. */
class Refused extends Exception
{
}

/** The connection failed. Another try may succeed. */
class Lost extends Exception
{
}

/** A WebSocket connection to a broker. */
class Connection
{
    private $socket;

    /** $url: ws://host:port/path, or wss:// with TLS. $silence: after so many seconds without a byte the connection counts as lost. */
    public function __construct(string $url, int $silence)
    {
        $parts = parse_url($url);
        $tls = ['ws' => false, 'tcp' => false, 'wss' => true, 'tls' => true][$parts['scheme'] ?? ''] ?? null;
        if ($tls === null || !isset($parts['host'])) {
            throw new Refused("\"$url\" is not a valid address; write ws://host:port/path or wss://host/path");
        }
        if (isset($parts['user'])) {
            throw new Refused('the address must not contain user and password; put them into WSMB_USER and WSMB_PASSWORD');
        }
        $address = $parts['host'] . ':' . ($parts['port'] ?? ($tls ? 443 : 80));
        $this->socket = $this->dial($address, trim($parts['host'], '[]'), $tls);
        stream_set_timeout($this->socket, $silence);
        $host = $parts['host'] . (isset($parts['port']) ? ":{$parts['port']}" : '');
        $this->upgrade($host, ($parts['path'] ?? '/') . (isset($parts['query']) ? "?{$parts['query']}" : ''));
    }

    /** Sends one text message. */
    public function send(string $text): void
    {
        $this->write(1, $text);
    }

    /** Waits for the next message of the broker and returns it. Answers pings meanwhile. */
    public function receive(): string
    {
        while (true) {
            [$first, $length] = array_values(unpack('C2', $this->take(2)));
            if ($length === 126) {
                $length = unpack('n', $this->take(2))[1];
            } elseif ($length === 127) {
                $length = unpack('J', $this->take(8))[1];
            }
            $payload = $this->take($length);
            switch ($first & 15) { // The broker sends no fragments.
                case 1:
                case 2:
                    return $payload;
                case 8:
                    $code = strlen($payload) < 2 ? '' : ' (' . trim(unpack('n', $payload)[1] . ' ' . substr($payload, 2)) . ')';
                    throw new Lost("the broker has closed the connection$code");
                case 9:
                    $this->write(10, $payload);
            }
        }
    }

    /** Ends the connection after the broker has processed all sent messages. */
    public function close(): void
    {
        try {
            $this->write(8, pack('n', 1000));
            while (true) {
                $this->receive();
            }
        } catch (Lost $end) {
            fclose($this->socket);
        }
    }

    private function dial(string $address, string $name, bool $tls)
    {
        $options = ['peer_name' => $name];
        if (getenv('WSMB_CA')) {
            $options['cafile'] = getenv('WSMB_CA');
        }
        $context = stream_context_create(['ssl' => $options]);
        $socket = @stream_socket_client("tcp://$address", $number, $text, 10, STREAM_CLIENT_CONNECT, $context);
        if (!$socket) {
            throw new Lost("cannot reach $address: $text");
        }
        stream_set_timeout($socket, 10);
        if (!$tls) {
            return $socket;
        }
        if (!extension_loaded('openssl')) {
            throw new Refused('this PHP has no openssl extension, which wss:// needs; install it');
        }
        $warnings = '';
        set_error_handler(static function ($level, $text) use (&$warnings) {
            $warnings .= $text . "\n";
            return true;
        });
        $is_encrypted = stream_socket_enable_crypto($socket, true, STREAM_CRYPTO_METHOD_TLS_CLIENT);
        restore_error_handler();
        if ($is_encrypted) {
            return $socket;
        }
        fclose($socket);
        if (strpos($warnings, 'cafile') !== false) {
            throw new Refused("cannot read the certificates in \"{$options['cafile']}\" (WSMB_CA)");
        }
        if (strpos($warnings, 'certificate verify failed') !== false || strpos($warnings, 'did not match') !== false) {
            throw new Refused(self::certificateError($address, $name));
        }
        throw new Lost("no TLS with $address: " . trim(preg_replace('/\s+/', ' ', $warnings)));
    }

    /** Returns why a server's certificate is not valid. Opens a connection to read it, and sends nothing on it. */
    private static function certificateError(string $address, string $name): string
    {
        $anything = ['verify_peer' => false, 'verify_peer_name' => false, 'capture_peer_cert' => true, 'peer_name' => $name];
        $context = stream_context_create(['ssl' => $anything]);
        $socket = @stream_socket_client("tls://$address", $number, $text, 10, STREAM_CLIENT_CONNECT, $context);
        $certificate = $socket ? openssl_x509_parse(stream_context_get_params($socket)['options']['ssl']['peer_certificate']) : false;
        if (!$certificate) {
            return "the certificate of $address is not valid";
        }
        $of = "the certificate of $address";
        if ($certificate['validTo_time_t'] < time()) {
            return "$of expired on " . gmdate('Y-m-d', $certificate['validTo_time_t']) . '; renew it, and check the clock of this computer';
        }
        if ($certificate['validFrom_time_t'] > time()) {
            return "$of is not valid before " . gmdate('Y-m-d', $certificate['validFrom_time_t']) . '; check the clock of this computer';
        }
        $common = (array) ($certificate['subject']['CN'] ?? []);
        $names = preg_split('/,\s*/', $certificate['extensions']['subjectAltName'] ?? '', -1, PREG_SPLIT_NO_EMPTY);
        $names = preg_replace('/^(DNS|IP Address):/', '', $names) ?: $common;
        if (!self::is_among($name, $names)) {
            return "$of is for \"" . implode('", "', $names) . "\", not for \"$name\"; use one of its names in the address";
        }
        if ($certificate['subject'] === $certificate['issuer']) {
            return "$of is signed by itself; if you trust it, name its file in WSMB_CA";
        }
        $issuer = implode(' ', (array) ($certificate['issuer']['CN'] ?? $certificate['issuer']['O'] ?? 'an issuer without a name'));
        return "$of is signed by \"$issuer\", which this computer does not know; name the file of that authority in WSMB_CA, "
            . 'or let the server send the intermediate certificates';
    }

    private static function is_among(string $name, array $names): bool
    {
        foreach ($names as $pattern) {
            $wildcard = '/^' . str_replace('\*', '[^.]+', preg_quote($pattern, '/')) . '$/i';
            $same_address = @inet_pton($name) !== false && @inet_pton($name) === @inet_pton($pattern);
            if ($same_address || preg_match($wildcard, $name)) {
                return true;
            }
        }
        return false;
    }

    private function upgrade(string $host, string $target): void
    {
        $key = base64_encode(random_bytes(16));
        $login = base64_encode(getenv('WSMB_USER') . ':' . getenv('WSMB_PASSWORD'));
        $this->put("GET $target HTTP/1.1\r\nHost: $host\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            . "Sec-WebSocket-Key: $key\r\nSec-WebSocket-Protocol: wsmb.v1\r\nAuthorization: Basic $login\r\n\r\n");
        $status = trim((string) fgets($this->socket));
        $accept = '';
        while (($line = fgets($this->socket)) !== false && trim($line) !== '') {
            if (stripos($line, 'Sec-WebSocket-Accept:') === 0) { // Some proxies write it in lower case.
                $accept = trim(substr($line, 21));
            }
        }
        if ($status === '' || preg_match('/^HTTP\S+ (408|429|5\d\d)/', $status)) {
            throw new Lost($status === '' ? 'the server does not answer' : "refused: $status");
        }
        if (strpos($status, 'HTTP/1.1 101 ') !== 0) {
            throw new Refused("refused: $status");
        }
        if ($accept !== base64_encode(sha1($key . '258EAFA5-E914-47DA-95CA-C5AB0DC85B11', true))) {
            throw new Refused('the server does not speak WebSocket');
        }
    }

    private function write(int $opcode, string $payload): void
    {
        $length = strlen($payload);
        $mask = random_bytes(4);
        $head = $length < 126 ? pack('CC', 0x80 | $opcode, 0x80 | $length) : pack('CCJ', 0x80 | $opcode, 0xFF, $length);
        $this->put($head . $mask . ($payload ^ str_pad('', $length, $mask)));
    }

    private function put(string $bytes): void
    {
        while ($bytes !== '') {
            $count = @fwrite($this->socket, $bytes);
            if (!$count) {
                throw new Lost('the connection broke');
            }
            $bytes = (string) substr($bytes, $count);
        }
    }

    private function take(int $length): string
    {
        $bytes = $length ? (string) @stream_get_contents($this->socket, $length) : '';
        if (strlen($bytes) !== $length) {
            throw new Lost(stream_get_meta_data($this->socket)['timed_out'] ? 'the broker does not answer' : 'the connection broke');
        }
        return $bytes;
    }
}

/** Returns the text as UTF-8. Text that is not valid UTF-8 counts as Latin-1. */
function utf8(string $text): string
{
    if (preg_match('//u', $text)) {
        return $text;
    }
    return preg_replace_callback('/[\x80-\xFF]/', static function ($byte) {
        $code = ord($byte[0]);
        return chr(0xC0 | $code >> 6) . chr(0x80 | $code & 0x3F);
    }, $text);
}

/** Prints an error and ends the script. */
function fail(string $sentence, int $exit_code = 1): void
{
    fwrite(STDERR, "$sentence\n");
    exit($exit_code);
}
