<?php
// Sends one message and waits until it is safe: stored, or confirmed by a receiver. Plain PHP, 7.4 to 8.x; it needs wsmb.php in the same directory.
//   WSMB_USER=shop WSMB_PASSWORD=… php send.php ws://127.0.0.1:8888 sms '{"receiver":"0812…","message":"Your code is 402913"}' [ID]
// Behind a proxy with TLS the address is wss://broker.example, or wss://broker.example/path. WSMB_CA names a file with trusted certificates.
//
// If the connection breaks, the script tries again for a minute (WSMB_TIMEOUT, in seconds), with the same id: the broker accepts only one message
// with an id. If it still fails, it prints the id, so that you can send the message again with this id within two minutes.
// Exit codes: 0, the broker has accepted the message; 1, it has not, or the result is not known; 3, the message went to nobody: the channel keeps
// nothing and has no receiver.

require __DIR__ . '/wsmb.php';

$argv += [1 => 'ws://127.0.0.1:8888', 2 => 'sms', 3 => '{"receiver":"081234567890","message":"Your code is 402913"}', 4 => bin2hex(random_bytes(16))];
[, $url, $channel, $message, $id] = $argv;

// JSON is sent unchanged: decoding would change 89620012345678901234 and 1.10. Any other text is sent as a JSON string.
$message = utf8($message);
json_decode($message);
if (json_last_error() !== JSON_ERROR_NONE) {
    if (preg_match('/^\s*[{[]/', $message)) {
        fail('the message begins like JSON, but is invalid: ' . json_last_error_msg());
    }
    $message = json_encode($message);
}
$command = '{"command":"send-message","channel":' . json_encode(utf8($channel)) . ',"data":[' . $message . '],"id":' . json_encode(utf8($id))
    . ',"ttl":60}'; // Seconds after which it is not delivered any more.

$deadline = time() + (getenv('WSMB_TIMEOUT') ?: 60);
$was_sent = false;
for ($pause = 1;; $pause = min(2 * $pause, 5)) {
    try {
        $broker = new Connection($url, 20);
        $was_sent = true;
        $broker->send($command);
        do { // The connect reply comes first.
            $answer = json_decode($broker->receive(), true);
        } while (($answer['command'] ?? '') === 'connect' || !isset($answer['response_code']));
        if ($answer['response_code'] !== '05') { // 05: temporarily unavailable.
            break;
        }
        $reason = "{$answer['response_code']} {$answer['response_text']}";
    } catch (Refused $refused) {
        fail($refused->getMessage());
    } catch (Lost $lost) {
        $reason = $lost->getMessage();
    }
    if (time() + $pause > $deadline) {
        fail($reason . ($was_sent ? "\nit is not known whether the broker has the message; send it again with this id: $id" : ''));
    }
    fwrite(STDERR, "$reason; trying again\n");
    sleep($pause);
}
if ($answer['response_code'] !== '00') {
    fail("not accepted: {$answer['response_code']} {$answer['response_text']}");
}
if (!empty($answer['duplicate'])) {
    echo "accepted: the broker had accepted it before\n";
} elseif ($answer['receivers'] > 0) {
    echo "accepted: a receiver has it\n";
} elseif ($answer['stored']) {
    echo "accepted: it waits for a receiver\n";
} else {
    fail('sent to nobody: the channel keeps nothing, and has no receiver', 3);
}
