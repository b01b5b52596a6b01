<?php
// Receives the messages of a channel over HTTP, by long polls, and prints them, one per line. Plain PHP, 7.4 to 8.x, with the extension curl.
//   WSMB_USER=gateway WSMB_PASSWORD=… php poll.php http://127.0.0.1:8888 sms [COUNT]
// Put your own code into handle(). The script ends after COUNT messages; without COUNT it runs until you end it.
//
// The script confirms a delivery with its next poll, or gives it back if handle() has thrown an exception. If the script dies before, the broker
// delivers the message again, marked. WSMB_RECEIVER names the script; two scripts that run at the same time need different names.

/** Handles one message. $again: whether it may have been handled before. */
function handle($message, bool $again): void
{
    echo json_encode($message, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES), "\n";
}

/** Sends a request. Returns the status and the answer. */
function ask(string $url, ?array $body = null): array
{
    $request = curl_init($url);
    curl_setopt_array($request, [
        CURLOPT_USERPWD => getenv('WSMB_USER') . ':' . getenv('WSMB_PASSWORD'),
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_TIMEOUT => 40, // Longer than `wait`.
    ]);
    if ($body !== null) {
        curl_setopt_array($request, [CURLOPT_POSTFIELDS => json_encode($body), CURLOPT_HTTPHEADER => ['Content-Type: application/json']]);
    }
    $answer = json_decode((string) curl_exec($request), true, 512, JSON_BIGINT_AS_STRING);
    return [curl_getinfo($request, CURLINFO_RESPONSE_CODE), $answer ?? ['detail' => curl_error($request)]];
}

[, $broker, $channel, $count] = $argv + [1 => 'http://127.0.0.1:8888', 2 => 'sms', 3 => PHP_INT_MAX];
$name = rawurlencode(getenv('WSMB_RECEIVER') ?: gethostname() . '-poll');
$url = "$broker/api/v1/channels/" . rawurlencode($channel) . "/messages?receiver=$name&wait=30s";
for ($after = '', $done = 0; $done < $count; ) {
    [$status, $batch] = ask($url . '&max=' . min(10, $count - $done) . $after);
    if ($status !== 200) {
        fwrite(STDERR, "$status {$batch['detail']}\n");
        if (in_array($status, [400, 401, 403, 404, 409], true)) {
            exit(1); // A repetition would be refused, too.
        }
        sleep(1);
        continue;
    }
    foreach ($batch['deliveries'] as $delivery) {
        try {
            foreach ($delivery['data'] as $message) {
                handle($message, isset($delivery['redelivered']));
                $done++;
            }
            $after = isset($delivery['delivery']) ? "&after={$delivery['delivery']}" : '';
        } catch (Throwable $failure) {
            fwrite(STDERR, "a message is given back: {$failure->getMessage()}\n");
            if (isset($delivery['delivery'])) {
                ask("$broker/api/v1/acks", ['nack' => [['delivery' => $delivery['delivery'], 'reason' => $failure->getMessage()]]]);
            }
        }
    }
}
if ($after !== '') {
    ask("$broker/api/v1/acks", ['up_to' => substr($after, strlen('&after='))]);
}
