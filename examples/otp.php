<?php
// A page that sends a code and shows what became of it. Plain PHP, 7.4 to 8.x, with the extension curl. Try it with PHP's own server:
//   WSMB_USER=app WSMB_PASSWORD=… php -S 127.0.0.1:8000 examples/otp.php
// WSMB_HTTP is the broker's address, without a `/` at the end. docs/http.md explains the request and its answers.

$broker = getenv('WSMB_HTTP') ?: 'http://127.0.0.1:8888';

/** Sends a message to the channel `sms`. Returns the outcome, and a sentence for the user. $key: the same for each repetition of one message. */
function send_code(string $broker, string $key, array $message): array
{
    for ($attempt = 1; ; $attempt++) {
        $request = curl_init("$broker/api/v1/channels/sms/messages?wait=5s&ttl=5m");
        curl_setopt_array($request, [
            CURLOPT_USERPWD => getenv('WSMB_USER') . ':' . getenv('WSMB_PASSWORD'),
            CURLOPT_HTTPHEADER => ['Content-Type: application/json', "Idempotency-Key: $key"],
            CURLOPT_POSTFIELDS => json_encode($message),
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_CONNECTTIMEOUT => 2,
            CURLOPT_TIMEOUT => 10, // Longer than `wait`.
        ]);
        $answer = json_decode((string) curl_exec($request), true);
        $status = curl_getinfo($request, CURLINFO_RESPONSE_CODE);
        if (($status !== 0 && $status !== 429 && $status !== 503) || $attempt === 3) {
            break;
        }
        sleep(1); // No answer, or an answer that asks for a repetition: the key makes the repetition harmless.
    }
    $outcome = $answer['outcome'] ?? 'refused';
    if ($outcome === 'refused') {
        error_log("wsmb: $status " . ($answer['detail'] ?? curl_error($request))); // For the administrator, not for the user.
    }
    $sentences = [
        'delivered' => 'The code is on its way.',
        'stored' => 'The code will be sent as soon as the gateway is back, within five minutes.',
        'nobody' => 'The code was not sent. Please try again.',
        'expired' => 'The code was not sent in time. Please ask for a new one.',
    ];
    return [$outcome, $sentences[$outcome] ?? 'The code could not be sent. Please try again later.'];
}

$said = '';
if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    $code = (string) random_int(100000, 999999); // Keep it in the session, and compare it later.
    [, $said] = send_code($broker, bin2hex(random_bytes(16)), ['receiver' => (string) ($_POST['receiver'] ?? ''), 'message' => "Your code is $code"]);
}
header('Content-Type: text/html; charset=utf-8');
?>
<!doctype html>
<title>A code by SMS</title>
<form method="post">
    <label>Telephone number <input name="receiver" type="tel" required></label>
    <button>Send a code</button>
</form>
<p><?= htmlspecialchars($said) ?></p>
