; A firmware image of 64 KiB that is a whole guest. What it does is chosen when it is assembled:
;   HELLO      prints a line on COM1
;   FLOOD      prints 16384 numbered lines of 64 bytes, 1 MiB, as fast as the port takes them
;   ECHO       prints "ready", then what it receives, upper case, until a full stop
;   END_OFF    then powers off by ACPI, END_EXIT=n writes n to port F4h, END_PANIC reports a panic, END_TRIPLE triple
;              faults, END_RESET resets; without one it halts for ever
        bits 16
        org 0

%define COM1 3f8h
%define LSR  (COM1 + 5)

start:  cli
        xor ax, ax
        mov ss, ax
        mov es, ax
        cld
        mov sp, 7000h
        mov ax, cs
        mov ds, ax
        mov dx, COM1 + 3
        mov al, 3                       ; 8 bits, no parity
        out dx, al
%ifndef ECHO                            ; turning the FIFOs on empties them, and input may have come already
        mov dx, COM1 + 2
        mov al, 7
        out dx, al
%endif
        mov dx, COM1 + 4
        mov al, 0bh                     ; DTR, RTS, OUT2
        out dx, al

%ifdef HELLO
        mov si, hello
        call print
%endif

%ifdef FLOOD
        xor bp, bp
.line:  mov di, 7000h                   ; the line is made in memory: four hexadecimal digits, dots, newline
        mov si, bp
        mov cx, 4
.digit: rol si, 4
        mov bx, si
        and bx, 15
        mov al, [digits + bx]
        mov [es:di], al
        inc di
        loop .digit
        mov al, '.'
        mov cx, 59
        rep stosb
        mov byte [es:di], 10
        mov si, 7000h
        mov bx, 4
.burst: mov dx, LSR                     ; THRE: the FIFO has room for 16
        in al, dx
        test al, 20h
        jz .burst
        mov dx, COM1
        mov cx, 16
        es rep outsb
        dec bx
        jnz .burst
        inc bp
        cmp bp, 16384
        jne .line
%endif

%ifdef ECHO
        mov si, ready
        call print
.next:  mov dx, LSR
        in al, dx
        test al, 1                      ; a byte was received
        jz .next
        mov dx, COM1
        in al, dx
        cmp al, '.'
        je .done
        cmp al, 'a'
        jb .out
        cmp al, 'z'
        ja .out
        sub al, 20h
.out:   call put
        jmp .next
.done:
%endif

%ifdef END_OFF
        mov eax, 80000b40h              ; 00:01.3 PMBA = 600h
        mov ebx, 601h
        call config
        mov eax, 80000b04h              ; command: I/O space
        mov ebx, 1
        call config
        mov eax, 80000b80h              ; PMREGMISC: decode it
        mov ebx, 1
        call config
        mov dx, 604h                    ; PMCNTRL: SUS_EN, type 0 is soft off
        mov ax, 2000h
        out dx, ax
%endif
%ifdef END_EXIT
        mov al, END_EXIT
        out 0f4h, al
%endif
%ifdef END_PANIC
        mov dx, 505h
        mov al, 1
        out dx, al
%endif
%ifdef END_RESET
        mov dx, 0cf9h
        mov al, 6
        out dx, al
%endif
%ifdef END_TRIPLE
        lidt [no_idt]
        ud2
%endif
forever:
        hlt
        jmp forever

config: mov dx, 0cf8h
        out dx, eax
        mov dx, 0cfch
        mov eax, ebx
        out dx, eax
        ret

print:  lodsb
        test al, al
        jz .end
        call put
        jmp print
.end:   ret

put:    push ax
        mov dx, LSR
.wait:  in al, dx
        test al, 20h                    ; THRE
        jz .wait
        pop ax
        mov dx, COM1
        out dx, al
        ret

hello:  db "hello from the guest", 10, 0
ready:  db "ready", 10, 0
digits: db "0123456789abcdef"
no_idt: dw 0
        dd 0

        times 0fff0h - ($ - $$) db 0
        jmp 0f000h:start                ; the first instruction after reset
        times 10000h - ($ - $$) db 0
